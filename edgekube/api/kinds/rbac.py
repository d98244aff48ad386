"""Role, RoleBinding, ClusterRole, ClusterRoleBinding."""

from edgekube.api.kind import Kind

ROLE = Kind(
    group="rbac.authorization.k8s.io",
    version="v1",
    kind="Role",
    plural="roles",
    singular="role",
    namespaced=True,
    schema="io.k8s.api.rbac.v1.Role",
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
    allow_create_on_update=True,
)
