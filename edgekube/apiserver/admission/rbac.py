"""Nobody gives away more than he has: writes of roles and bindings are refused where they would raise somebody's rights.

Upstream does this in the storage of the rbac kinds (policybased/storage.go); the verbs `escalate` (roles) and `bind` (bindings) are the
explicit exceptions, system:masters the implicit one.
"""

from collections.abc import Sequence

from edgekube.apiserver.admission.common import BasePlugin, forbidden
from edgekube.apiserver.admission.protocol import Admission
from edgekube.apiserver.identity import Attributes
from edgekube.apiserver.rbac import PRIVILEGED_GROUP, RbacAuthorizer
from edgekube.apiserver.rules import Rule, compact, compile_rules, show, uncovered
from edgekube.errors import NotFound

GROUP = "rbac.authorization.k8s.io"


class EscalationCheck(BasePlugin):
    """Looks at the final object, after all mutation."""

    name = "RBACEscalation"
    kinds = ("roles", "clusterroles", "rolebindings", "clusterrolebindings")

    def __init__(self, authorizer: RbacAuthorizer) -> None:
        self._authorizer = authorizer

    async def validate(self, request: Admission) -> None:
        if request.obj is None or request.kind.group != GROUP or request.operation not in ("CREATE", "UPDATE"):
            return
        if PRIVILEGED_GROUP in request.user.groups:
            return
        if request.kind.plural.endswith("bindings"):
            self._check_binding(request)
        else:
            self._check_role(request)

    def _check_role(self, request: Admission) -> None:
        obj, old = request.obj or {}, request.old or {}
        if request.old is not None and obj.get("rules") == old.get("rules") and obj.get("aggregationRule") == old.get("aggregationRule"):
            return
        if self._may(request, "escalate", request.kind.plural, request.name or obj["metadata"].get("name", ""), request.namespace):
            return
        if obj.get("aggregationRule") and not self._has_all(request):
            raise forbidden(request, "must have cluster-admin privileges to use the aggregationRule")
        self._confirm(request, compile_rules(obj.get("rules")), ())

    def _check_binding(self, request: Admission) -> None:
        obj, old = request.obj or {}, request.old or {}
        if request.old is not None and obj.get("roleRef") == old.get("roleRef") and obj.get("subjects") == old.get("subjects"):
            return
        role = obj.get("roleRef") or {}
        kind, name = role.get("kind", ""), role.get("name", "")
        plural = "clusterroles" if kind == "ClusterRole" else "roles"
        if self._may(request, "bind", plural, name, request.namespace):
            return
        rules = self._authorizer.role_rules(kind, name, request.namespace)
        if rules is None:
            raise NotFound.of(GROUP, plural, name)
        self._confirm(request, rules, ())

    def _may(self, request: Admission, verb: str, plural: str, name: str, namespace: str) -> bool:
        attributes = Attributes(request.user, verb, resource=plural, group=GROUP, version="v1", namespace=namespace, name=name)
        return self._authorizer.authorize(attributes).allowed

    def _has_all(self, request: Admission) -> bool:
        everything = (Rule(frozenset("*"), frozenset("*"), frozenset("*")), Rule(frozenset("*"), urls=("*",)))
        return not uncovered(everything, list(self._authorizer.rules_for(request.user, "")))

    def _confirm(self, request: Admission, wanted: Sequence[Rule], errors: Sequence[str]) -> None:
        missing = uncovered(wanted, list(self._authorizer.rules_for(request.user, request.namespace)))
        if missing:
            user = request.user
            shown = sorted(show(rule) for rule in compact(missing))
            groups = ", ".join(f'"{group}"' for group in user.groups)
            text = f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n' + "\n".join(
                shown
            )
            if errors:
                text += "; resolution errors: [" + ", ".join(errors) + "]"
            raise forbidden(request, text)
