"""Several authorizers as one: the first that allows decides; a refusal tells what each of them had to say."""

from collections.abc import Sequence

from edgekube.apiserver.bootstrap.objects import parse_rule
from edgekube.apiserver.bootstrap.policy import NODE_RULES
from edgekube.apiserver.identity import Attributes, Authorizer, Decision
from edgekube.apiserver.nodeauthz import NodeAuthorizer
from edgekube.apiserver.objects import Objects
from edgekube.apiserver.rules import compile_rules


class Union:
    """Satisfies identity.Authorizer. As upstream's union authorizer with `--authorization-mode=Node,RBAC`."""

    def __init__(self, members: Sequence[Authorizer]) -> None:
        self._members = tuple(members)

    def authorize(self, attributes: Attributes) -> Decision:
        reasons = []
        for member in self._members:
            decision = member.authorize(attributes)
            if decision.allowed:
                return decision
            if decision.reason:
                reasons.append(decision.reason)
        return Decision(False, "\n".join(reasons))


def node_and_rbac(objects: Objects, rbac: Authorizer) -> Authorizer:
    """What every server asks: the Node authorizer first, then RBAC."""
    return Union((NodeAuthorizer(objects, compile_rules([parse_rule(line) for line in NODE_RULES])), rbac))
