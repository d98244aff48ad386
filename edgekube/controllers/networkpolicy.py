"""NetworkPolicy: resolve the selectors of each policy into its PolicySlice, so that a node needs to see no other node's pods.

Reads networkpolicies, pods, namespaces and the Service kube-system/kube-dns; writes policyslices. Promises: a pod or namespace that comes,
changes or goes costs as much as the policies that name it, not as all there are; a burst of changes is written at most twenty times a
second per policy, less often the larger the slice; once every policy has its slice, the slice COMPLETE says so.

DNS is answered by every node itself, at the address of the Service kube-dns: for policies that address counts as a pod of kube-system with
the labels and port names of upstream's DNS pods, so that the usual `namespaceSelector: kube-system, port 53` means what it meant.
"""

from collections.abc import Hashable, Iterable, Sequence

from edgekube.api.catalog import NAMESPACE, NETWORK_POLICY, POD, POLICY_SLICE, SERVICE
from edgekube.api.item import Item
from edgekube.api.kinds.policyslice import COMPLETE
from edgekube.api.types import Key, Obj
from edgekube.client.derived import Derived
from edgekube.controllers.base import DONE, Base, Maps, Owns, Result, Tools
from edgekube.controllers.policypeers import Candidate, Member, PeerIndex
from edgekube.controllers.policyslices import PolicyFacts, read_policy, slice_spec
from edgekube.controllers.replicaset import is_namespace_terminating
from edgekube.errors import ApiError, NotFound

_DNS = Key("kube-system", "kube-dns")
_DNS_POD = Key("kube-system", "service:kube-dns")  # no pod can have that name
_DNS_LABELS = {"k8s-app": "kube-dns"}
_DNS_PORTS = (("dns", "UDP", 53), ("dns-tcp", "TCP", 53))
_PAUSE, _PAUSE_PER_MEMBER, _LONGEST_PAUSE = 0.05, 0.0002, 1.0  # seconds between two writes of one slice


class NetworkPolicyController(Base):
    name = "networkpolicy-controller"
    primary = NETWORK_POLICY

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._policies = Derived(self.cache, NETWORK_POLICY, lambda item: read_policy(item.decode()))
        self._index = PeerIndex(self._pods_of)
        self._wrote: dict[Key, tuple[int, float]] = {}  # policy -> (its revision, when its slice may be written again)

    def watches(self) -> Sequence[Owns | Maps]:
        return (
            Maps(POD, self._of_pod),
            Maps(NAMESPACE, self._of_namespace),
            Maps(SERVICE, self._of_service),
            Maps(POLICY_SLICE, self._of_slice),
        )

    def _of_pod(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        item = new or old
        if item is None or not len(self._index):
            return ()
        return self._index.pod(self._candidate(item) if new is not None else Candidate(item.key, {}, None))

    def _of_namespace(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        item = new or old
        if item is None:
            return
        if old is None or new is None or old.labels != new.labels:
            yield from self._index.namespace(item.name, new.labels if new is not None else None)
        if item.name == COMPLETE.namespace and old is None:
            yield COMPLETE

    def _of_service(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        item = new or old
        if item is not None and item.key == _DNS:
            yield from self._index.pod(self._dns())

    def _of_slice(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        """Somebody removed or changed what we wrote; or what is complete may be more now."""
        item = new or old
        if item is not None and (new is None or (old is not None and item.key != COMPLETE)):
            yield item.key
        if self.cache.get(POLICY_SLICE, COMPLETE) is None:
            yield COMPLETE

    def _pods_of(self, namespace: str) -> Iterable[Candidate]:
        yield from map(self._candidate, self.cache.list(POD, namespace))
        if namespace in ("", _DNS.namespace):
            yield self._dns()

    def _candidate(self, item: Item) -> Candidate:
        pod = self.pods(item)
        outside = pod.host_network or pod.terminal or not pod.ips or not pod.node
        return Candidate(item.key, item.labels, None if outside else Member(pod.node, pod.ips, pod.ports))

    def _dns(self) -> Candidate:
        item = self.cache.get(SERVICE, _DNS)
        spec = item.decode().get("spec", {}) if item is not None else {}
        addresses = () if spec.get("selector") else tuple(a for a in spec.get("clusterIPs") or () if a != "None")
        return Candidate(_DNS_POD, _DNS_LABELS, Member("", addresses, _DNS_PORTS) if addresses else None)

    async def reconcile(self, key: Key) -> Result:
        if key == COMPLETE:
            return await self._complete()
        item = self.cache.get(NETWORK_POLICY, key)
        if item is None or item.deleting:
            return await self._remove(key)
        facts = self._policies(item)
        self._index.hold(key, {entry.key for entry in facts.entries})
        revision, not_before = self._wrote.get(key, (0, 0.0))
        wait = not_before - self.clock.monotonic()
        if wait > 0 and revision == item.revision:
            return Result(after=wait)
        spec = slice_spec(facts, self._index)
        if await self._write(facts, spec):
            pause = _PAUSE + _PAUSE_PER_MEMBER * sum(len(self._index.members(entry.key)) for entry in facts.entries)
            self._wrote[key] = (item.revision, self.clock.monotonic() + min(pause, _LONGEST_PAUSE))
        return DONE

    async def _remove(self, key: Key) -> Result:
        self._index.hold(key, ())
        self._wrote.pop(key, None)
        if self.cache.get(POLICY_SLICE, key) is not None:
            try:
                await self.client.delete(POLICY_SLICE, key.name, key.namespace)
            except NotFound:
                return DONE
        return DONE

    async def _write(self, facts: PolicyFacts, spec: Obj) -> bool:
        """Make the slice say so; whether it had to be written."""
        owner = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "name": facts.key.name, "uid": facts.uid}
        owners = [owner | {"controller": True, "blockOwnerDeletion": True}]
        existing = self.cache.get(POLICY_SLICE, facts.key)
        if existing is None:
            about = {"name": facts.key.name, "namespace": facts.key.namespace, "ownerReferences": owners}
            try:
                await self.client.create(POLICY_SLICE, _slice(about, spec), facts.key.namespace)
            except ApiError as error:
                if not is_namespace_terminating(error):
                    raise
            return True
        found = existing.decode()
        if found.get("spec") == spec and found["metadata"].get("ownerReferences") == owners:
            return False
        await self.client.update(POLICY_SLICE, _slice(found["metadata"] | {"ownerReferences": owners}, spec))
        return True

    async def _complete(self) -> Result:
        """Each change of a slice looks again, until every policy has one."""
        if self.cache.get(POLICY_SLICE, COMPLETE) is not None:
            return DONE
        for policy in self.cache.list(NETWORK_POLICY):
            space = self.cache.get(NAMESPACE, Key("", policy.namespace))
            ending = space is None or space.deleting or policy.deleting
            if not ending and self.cache.get(POLICY_SLICE, policy.key) is None:
                return DONE
        await self.client.create(POLICY_SLICE, _slice({"name": COMPLETE.name, "namespace": COMPLETE.namespace}, {}), COMPLETE.namespace)
        return DONE


def _slice(metadata: Obj, spec: Obj) -> Obj:
    return {"apiVersion": POLICY_SLICE.api_version, "kind": POLICY_SLICE.kind, "metadata": metadata, "spec": spec}
