"""Role, RoleBinding, ClusterRole, ClusterRoleBinding."""

from typing import Any

from edgekube.api.kind import Column, Kind
from edgekube.api.kinds import rbac_validation
from edgekube.api.kinds.printing import AGE, NAME
from edgekube.api.kinds.rbac_validation import GROUP
from edgekube.api.types import Obj


def default_binding(obj: Obj) -> None:
    """Groups of the role and the subjects (pkg/apis/rbac/v1/defaults.go)."""
    role = obj.get("roleRef") or {}
    if role and not role.get("apiGroup"):
        role["apiGroup"] = GROUP
    for subject in obj.get("subjects") or ():
        if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
            subject["apiGroup"] = GROUP


def _created(obj: Obj, _now: float) -> str:
    return str(obj["metadata"].get("creationTimestamp") or "")


def _role(obj: Obj, _now: float) -> str:
    role = obj.get("roleRef") or {}
    return f"{role.get('kind', '')}/{role.get('name', '')}"


def _subjects(kind: str) -> Any:
    def shown(obj: Obj, _now: float) -> str:
        found = [subject for subject in obj.get("subjects") or () if subject.get("kind") == kind]
        if kind == "ServiceAccount":
            return ", ".join(f"{subject.get('namespace', '')}/{subject['name']}" for subject in found)
        return ", ".join(subject["name"] for subject in found)

    return shown


_CREATED = Column("Created At", _created, "date", description=AGE.description)
_ROLE_COLUMNS = (NAME, _CREATED)
_BINDING_COLUMNS = (
    NAME,
    Column("Role", _role, description="The role that is granted."),
    AGE,
    Column("Users", _subjects("User"), priority=1),
    Column("Groups", _subjects("Group"), priority=1),
    Column("ServiceAccounts", _subjects("ServiceAccount"), priority=1),
)

ROLE = Kind(
    group="rbac.authorization.k8s.io",
    version="v1",
    kind="Role",
    plural="roles",
    singular="role",
    namespaced=True,
    schema="io.k8s.api.rbac.v1.Role",
    validate=rbac_validation.check_role,
    columns=_ROLE_COLUMNS,
    allow_create_on_update=True,
)

ROLE_BINDING = Kind(
    group="rbac.authorization.k8s.io",
    version="v1",
    kind="RoleBinding",
    plural="rolebindings",
    singular="rolebinding",
    namespaced=True,
    schema="io.k8s.api.rbac.v1.RoleBinding",
    validate=rbac_validation.check_role_binding,
    default=default_binding,
    columns=_BINDING_COLUMNS,
    allow_create_on_update=True,
)

CLUSTER_ROLE = Kind(
    group="rbac.authorization.k8s.io",
    version="v1",
    kind="ClusterRole",
    plural="clusterroles",
    singular="clusterrole",
    namespaced=False,
    schema="io.k8s.api.rbac.v1.ClusterRole",
    validate=rbac_validation.check_cluster_role,
    columns=_ROLE_COLUMNS,
    allow_create_on_update=True,
)

CLUSTER_ROLE_BINDING = Kind(
    group="rbac.authorization.k8s.io",
    version="v1",
    kind="ClusterRoleBinding",
    plural="clusterrolebindings",
    singular="clusterrolebinding",
    namespaced=False,
    schema="io.k8s.api.rbac.v1.ClusterRoleBinding",
    validate=rbac_validation.check_cluster_role_binding,
    default=default_binding,
    columns=_BINDING_COLUMNS,
    allow_create_on_update=True,
)
