"""The Node authorizer: a node reads what its own pods need, and nothing of the others' (plugin/pkg/auth/authorizer/node upstream).

    its own Node                 read; create, update and its status (what may stand in it is admission's: admission/noderestriction.py)
    pods                         those bound to it; create, delete, status, eviction (of its own: admission again)
    secrets, configmaps          single ones, while a pod bound to the node refers to them
    service account tokens       of accounts that its pods run as
    leases                       its own in kube-node-lease
    volumes, claims, devices     nothing: what a pod needs of them is not worked out here, and the rules alone would give those of all
    everything else              the static rules of the ClusterRole system:node

Reads pods in memory. What a pod refers to is worked out when a node first asks and remembered per version of the pod: a server without
agents pays a dictionary entry per pod. Promises: who is no node gets no opinion; a pod's grant ends with the pod's binding or its end.
Mirror pods grant nothing: the node itself writes them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from edgekube.api import catalog, podrefs
from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.selectors import parse_fields
from edgekube.api.types import Key
from edgekube.apiserver.identity import Attributes, Decision, node_of
from edgekube.apiserver.objects import Objects
from edgekube.apiserver.rules import Rule
from edgekube.errors import BadRequest

LEASES = "kube-node-lease"
MIRROR = "kubernetes.io/config.mirror"
_ALLOWED = Decision(True)
_NO_OPINION = Decision(False)
_READS = frozenset(("get", "list", "watch"))


class _Needs(NamedTuple):
    """What one version of a pod refers to."""

    revision: int
    objects: frozenset[tuple[Kind, Key]]


class NodeAuthorizer:
    """Satisfies identity.Authorizer."""

    def __init__(self, objects: Objects, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self._pods: dict[str, dict[Key, Item]] = {}  # node -> its pods
        self._needs: dict[Key, _Needs] = {}
        self.close: Callable[[], None] = objects.follow(catalog.POD, self._pod_changed)

    def authorize(self, attributes: Attributes) -> Decision:
        """What the node may do for itself; no opinion, with upstream's reason, on the rest."""
        node = node_of(attributes.user)
        if node is None:
            return _NO_OPINION
        if not node:
            return Decision(False, f'unknown node for user "{attributes.user.name}"')
        special = _SPECIAL.get((attributes.group, attributes.resource))
        if special is not None:
            return special(self, node, attributes)
        return _ALLOWED if any(_covers(rule, attributes) for rule in self._rules) else _NO_OPINION

    # what the pods of a node are and need

    def _pod_changed(self, old: Item | None, new: Item | None) -> None:
        before, after = _node_name(old), _node_name(new)
        if old is not None and before and (before != after or new is None):
            pods = self._pods.get(before, {})
            pods.pop(old.key, None)
            self._needs.pop(old.key, None)
            if not pods:
                self._pods.pop(before, None)
        if new is not None and after:
            self._pods.setdefault(after, {})[new.key] = new

    def _related(self, node: str, kind: Kind, key: Key) -> bool:
        pods = self._pods.get(node, {})
        if kind is catalog.POD:
            return key in pods
        return any((kind, key) in self._needs_of(item) for item in pods.values() if item.namespace == key.namespace)

    def _needs_of(self, item: Item) -> frozenset[tuple[Kind, Key]]:
        known = self._needs.get(item.key)
        if known is None or known.revision != item.revision:
            known = self._needs[item.key] = _Needs(item.revision, _references(item))
        return known.objects

    def _by_relation(self, node: str, kind: Kind, asked: Attributes) -> Decision:
        if not asked.name:
            return Decision(False, "No Object name found")
        if self._related(node, kind, Key(asked.namespace, asked.name)):
            return _ALLOWED
        return Decision(False, f"no relationship found between node '{node}' and this object")

    # one method for each resource that is subdivided

    def _nothing(self, node: str, _asked: Attributes) -> Decision:
        return Decision(False, f"no relationship found between node '{node}' and this object")

    def _read(self, node: str, kind: Kind, asked: Attributes) -> Decision:
        if asked.verb not in _READS:
            return Decision(False, "can only read resources of this type")
        if asked.subresource:
            return Decision(False, "cannot read subresource")
        if not asked.namespace:
            return Decision(False, "can only read namespaced object of this type")
        return self._by_relation(node, kind, asked)

    def _secret(self, node: str, asked: Attributes) -> Decision:
        return self._read(node, catalog.SECRET, asked)

    def _config_map(self, node: str, asked: Attributes) -> Decision:
        return self._read(node, catalog.CONFIG_MAP, asked)

    def _account(self, node: str, asked: Attributes) -> Decision:
        if asked.verb != "create" or not asked.name:
            return Decision(False, "can only create tokens for individual service accounts")
        if asked.subresource != "token":
            return Decision(False, "can only create token subresource of serviceaccount")
        return self._by_relation(node, catalog.SERVICE_ACCOUNT, asked)

    def _lease(self, node: str, asked: Attributes) -> Decision:
        if asked.verb not in ("get", "create", "update", "patch", "delete"):
            return Decision(False, "can only get, create, update, patch, or delete a node lease")
        if asked.namespace != LEASES:
            return Decision(False, f'can only access leases in the "{LEASES}" system namespace')
        if asked.verb != "create" and asked.name != node:  # the name of a new one is admission's to look at
            return Decision(False, "can only access node lease with the same name as the requesting node")
        return _ALLOWED

    def _node(self, node: str, asked: Attributes) -> Decision:
        if asked.subresource == "status":
            return _ALLOWED if asked.verb in ("update", "patch") else _NO_OPINION
        if asked.subresource:
            return _NO_OPINION
        if asked.verb in ("create", "update", "patch"):
            return _ALLOWED
        if asked.verb not in _READS:
            return _NO_OPINION
        if asked.name == node:
            return _ALLOWED
        what = f"'{asked.name}'" if asked.name else "all nodes"
        return Decision(False, f"node '{node}' cannot read {what}, only its own Node object")

    def _pod(self, node: str, asked: Attributes) -> Decision:
        granted = _POD_WRITES.get(asked.subresource, ())
        if asked.verb in granted:
            return _ALLOWED
        if asked.subresource or asked.verb not in _READS:
            return _NO_OPINION
        if asked.verb == "get":
            return self._by_relation(node, catalog.POD, asked)
        if _selected_node(asked.fields) == node:
            return _ALLOWED
        if asked.name:
            return self._by_relation(node, catalog.POD, asked)
        return Decision(False, "can only list/watch pods with spec.nodeName field selector")


_POD_WRITES: Mapping[str, Sequence[str]] = {"": ("create", "delete"), "status": ("update", "patch"), "eviction": ("create",)}
_SPECIAL: Mapping[tuple[str, str], Callable[[NodeAuthorizer, str, Attributes], Decision]] = {
    ("", "secrets"): NodeAuthorizer._secret,
    ("", "configmaps"): NodeAuthorizer._config_map,
    ("", "serviceaccounts"): NodeAuthorizer._account,
    ("coordination.k8s.io", "leases"): NodeAuthorizer._lease,
    ("", "nodes"): NodeAuthorizer._node,
    ("", "pods"): NodeAuthorizer._pod,
    ("", "persistentvolumeclaims"): NodeAuthorizer._nothing,
    ("", "persistentvolumes"): NodeAuthorizer._nothing,
    ("storage.k8s.io", "volumeattachments"): NodeAuthorizer._nothing,
    ("storage.k8s.io", "csinodes"): NodeAuthorizer._nothing,
    ("resource.k8s.io", "resourceclaims"): NodeAuthorizer._nothing,
    ("resource.k8s.io", "resourceslices"): NodeAuthorizer._nothing,
    ("certificates.k8s.io", "podcertificaterequests"): NodeAuthorizer._nothing,
}


def _covers(rule: Rule, asked: Attributes) -> bool:
    if not asked.resource:
        return rule.covers_url(asked.verb, asked.path)
    if not rule.covers_resource(asked.verb, asked.group, asked.resource, asked.subresource):
        return False
    return not rule.names or asked.name in rule.names


def _node_name(item: Item | None) -> str:
    return "" if item is None else item.fields.get("spec.nodeName", "")


def _selected_node(fields: str) -> str:
    try:
        return parse_fields(fields).exact("spec.nodeName") or ""
    except BadRequest:
        return ""


def _references(item: Item) -> frozenset[tuple[Kind, Key]]:
    pod = item.decode()
    if MIRROR in (pod["metadata"].get("annotations") or {}):
        return frozenset()
    account = pod["spec"].get("serviceAccountName")
    accounts = {(catalog.SERVICE_ACCOUNT, Key(item.namespace, account))} if account else set()
    return frozenset(podrefs.references(pod) | accounts)
