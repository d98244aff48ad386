"""The one list of kinds. Generic code goes through `KINDS`, `find` and `find_kind`; a component names the constant of what it works on."""

from edgekube.api.kind import Kind
from edgekube.api.kinds.certificatesigningrequest import CERTIFICATE_SIGNING_REQUEST
from edgekube.api.kinds.configmap import CONFIG_MAP
from edgekube.api.kinds.controllerrevision import CONTROLLER_REVISION
from edgekube.api.kinds.deployment import DEPLOYMENT
from edgekube.api.kinds.endpoints import ENDPOINTS
from edgekube.api.kinds.endpointslice import ENDPOINT_SLICE
from edgekube.api.kinds.event import EVENT, EVENT_V1
from edgekube.api.kinds.lease import LEASE
from edgekube.api.kinds.namespace import NAMESPACE
from edgekube.api.kinds.networkpolicy import NETWORK_POLICY
from edgekube.api.kinds.node import NODE
from edgekube.api.kinds.pod import POD
from edgekube.api.kinds.policyslice import POLICY_SLICE
from edgekube.api.kinds.priorityclass import PRIORITY_CLASS
from edgekube.api.kinds.rbac import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING
from edgekube.api.kinds.replicaset import REPLICA_SET
from edgekube.api.kinds.secret import SECRET
from edgekube.api.kinds.service import SERVICE
from edgekube.api.kinds.serviceaccount import SERVICE_ACCOUNT

__all__ = (
    "CERTIFICATE_SIGNING_REQUEST",
    "CLUSTER_ROLE",
    "CLUSTER_ROLE_BINDING",
    "CONFIG_MAP",
    "CONTROLLER_REVISION",
    "DEPLOYMENT",
    "ENDPOINTS",
    "ENDPOINT_SLICE",
    "EVENT",
    "EVENT_V1",
    "KINDS",
    "LEASE",
    "NAMESPACE",
    "NETWORK_POLICY",
    "NODE",
    "POD",
    "POLICY_SLICE",
    "PRIORITY_CLASS",
    "REPLICA_SET",
    "ROLE",
    "ROLE_BINDING",
    "SECRET",
    "SERVICE",
    "SERVICE_ACCOUNT",
    "find",
    "find_kind",
)

KINDS: tuple[Kind, ...] = (
    NAMESPACE,
    NODE,
    POD,
    SERVICE,
    ENDPOINTS,
    CONFIG_MAP,
    SECRET,
    SERVICE_ACCOUNT,
    EVENT,
    EVENT_V1,
    ENDPOINT_SLICE,
    LEASE,
    DEPLOYMENT,
    REPLICA_SET,
    CONTROLLER_REVISION,
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    ROLE,
    ROLE_BINDING,
    PRIORITY_CLASS,
    CERTIFICATE_SIGNING_REQUEST,
    NETWORK_POLICY,
    POLICY_SLICE,
)

_BY_PLURAL = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}
_BY_KIND = {(kind.api_version, kind.kind): kind for kind in KINDS}


def find(group: str, version: str, plural: str) -> Kind | None:
    """The kind that an address names."""
    return _BY_PLURAL.get((group, version, plural))


def find_kind(api_version: str, kind: str) -> Kind | None:
    """The kind that an object names."""
    return _BY_KIND.get((api_version, kind))
