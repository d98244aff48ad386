"""The admission plugins, in upstream's order, each with the reason for its place. The verbs run `mutate` of all, then `validate` of all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgekube.apiserver.admission.certificates import (
    CertificateApproval,
    CertificateRequester,
    CertificateSigning,
    CertificateSubjectRestriction,
)
from edgekube.apiserver.admission.namespaces import NamespaceLifecycle
from edgekube.apiserver.admission.nodeloss import NodeLoss
from edgekube.apiserver.admission.noderate import NodeRate
from edgekube.apiserver.admission.noderestriction import NodeRestriction
from edgekube.apiserver.admission.pods import DefaultTolerationSeconds, Priority, TaintNodesByCondition
from edgekube.apiserver.admission.protocol import Plugin
from edgekube.apiserver.admission.rbac import EscalationCheck
from edgekube.apiserver.admission.serviceaccount import ServiceAccountAdmission
from edgekube.apiserver.admission.services import ServiceAllocation
from edgekube.apiserver.allocators import ServiceValues
from edgekube.apiserver.objects import Objects
from edgekube.apiserver.rbac import RbacAuthorizer
from edgekube.lib.clock import Clock, SystemClock


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What plugins may be built from."""

    objects: Objects
    rbac: RbacAuthorizer
    values: ServiceValues
    clock: Clock = field(default_factory=SystemClock)
    node_loss: str = "stay"


PLUGINS: tuple[Callable[[Environment], Plugin], ...] = (
    lambda environment: NamespaceLifecycle(environment.objects),  # first: nothing is worked out for a namespace that is not there
    lambda environment: ServiceAccountAdmission(environment.objects),  # adds volumes and mounts that later plugins may look at
    lambda environment: NodeRestriction(environment.objects, environment.rbac),
    lambda _: TaintNodesByCondition(),
    lambda environment: Priority(environment.objects),
    lambda environment: NodeLoss(environment.node_loss),  # before everybody gets tolerations: it looks at those that somebody chose
    lambda _: DefaultTolerationSeconds(),
    lambda environment: CertificateRequester(environment.clock),
    lambda environment: CertificateApproval(environment.rbac),
    lambda environment: CertificateSigning(environment.rbac),
    lambda _: CertificateSubjectRestriction(),
    lambda environment: NodeRate(environment.clock),
    lambda environment: EscalationCheck(environment.rbac),
    lambda environment: ServiceAllocation(environment.values),  # last of the mutating: it reserves
)


def build(environment: Environment) -> Sequence[Plugin]:
    """All plugins, ready to use."""
    return tuple(make(environment) for make in PLUGINS)
