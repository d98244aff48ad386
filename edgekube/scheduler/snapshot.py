"""What the scheduler knows of pods and nodes: slim, immutable projections of pods, and nodes that carry the sums over their pods.

Pods of one template repeat each other, so projections share equal parts: a waiting pod costs half a kilobyte instead of one and a half.
`Cluster` is kept current from the cache's changes and holds *assumed* pods besides: placed by us, not yet seen bound. An assumed pod counts
on its node until the watch brings the bound version, or until `forget`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from sys import intern
from typing import Any

import orjson

from edgekube.api import pods
from edgekube.api.item import Item
from edgekube.api.types import Key, Obj
from edgekube.scheduler.affinity import NodeTerm, PodTerm, SpreadConstraint, node_terms, pod_terms, spread_constraints

DEFAULT_MILLI_CPU = 100
DEFAULT_MEMORY = 200 * 1024 * 1024

HostPort = tuple[str, str, int]  # (host address, protocol, port)
_NOTHING: Mapping[str, str] = {}
_DIFFERENT = 1024  # so many different parts of a sort are shared


@dataclass(frozen=True, slots=True, kw_only=True)
class PodInfo:
    """What decides where a pod goes and what it takes there."""

    key: Key
    uid: str
    node: str
    priority: int
    scheduler: str
    gates: tuple[str, ...]
    terminal: bool
    deleting: bool
    labels: Mapping[str, str]
    requests: Mapping[str, int]
    usual: tuple[int, int]  # milli-CPU and memory with a usual amount for containers that request none: for scores
    best_effort: bool
    host_ports: tuple[HostPort, ...]
    tolerations: Sequence[Obj]
    node_selector: Mapping[str, str]
    required_nodes: Sequence[NodeTerm] | None  # any of them must match; None: no such wish
    preferred_nodes: Sequence[tuple[int, NodeTerm]]
    affinity: Sequence[PodTerm]
    anti_affinity: Sequence[PodTerm]
    preferred_pods: Sequence[tuple[int, PodTerm]]  # weight below 0: rather not near
    spread: Sequence[SpreadConstraint]
    images: tuple[str, ...]
    preempts: bool

    @property
    def waits(self) -> bool:
        """It is ours to place."""
        return not self.node and not self.terminal


@lru_cache(_DIFFERENT)
def _tolerations(encoded: bytes) -> Sequence[Obj]:
    return tuple(orjson.loads(encoded))


@lru_cache(_DIFFERENT)
def _amounts(entries: tuple[tuple[str, int], ...]) -> Mapping[str, int]:
    return dict(entries)


@lru_cache(_DIFFERENT)
def _pair(milli_cpu: int, memory: int) -> tuple[int, int]:
    return milli_cpu, memory


@lru_cache(_DIFFERENT)
def _texts(texts: tuple[str, ...]) -> tuple[str, ...]:
    return texts


def pod_info(item: Item) -> PodInfo:
    """Read a pod's Item."""
    pod = item.decode()
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    affinity = spec.get("affinity") or {}
    node_affinity = affinity.get("nodeAffinity") or {}
    required = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    requests = pods.requests(pod)
    near, far = affinity.get("podAffinity") or {}, affinity.get("podAntiAffinity") or {}
    namespace = item.namespace
    return PodInfo(
        key=item.key,
        uid=item.uid,
        node=intern(spec.get("nodeName") or ""),
        priority=int(spec.get("priority") or 0),
        scheduler=intern(spec.get("schedulerName") or "default-scheduler"),
        gates=_texts(tuple(gate.get("name", "") for gate in spec.get("schedulingGates") or ())),
        terminal=status.get("phase") in ("Succeeded", "Failed"),
        deleting=item.deleting,
        labels=item.labels,
        requests=_amounts(tuple(requests.items())),
        usual=_pair(*_usual(pod, spec, requests)),
        best_effort=pods.qos_class(pod) == "BestEffort",
        host_ports=tuple(pods.host_ports(pod)),
        tolerations=_tolerations(orjson.dumps(spec.get("tolerations") or ())),
        node_selector=spec.get("nodeSelector") or _NOTHING,
        required_nodes=None if required is None else node_terms(required.get("nodeSelectorTerms") or ()),
        preferred_nodes=_preferred_nodes(node_affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()),
        affinity=pod_terms(near.get("requiredDuringSchedulingIgnoredDuringExecution") or (), namespace, item.labels),
        anti_affinity=pod_terms(far.get("requiredDuringSchedulingIgnoredDuringExecution") or (), namespace, item.labels),
        preferred_pods=_preferred_pods(near, far, namespace, item.labels),
        spread=spread_constraints(spec.get("topologySpreadConstraints") or (), item.labels),
        images=_texts(tuple(container.get("image", "") for container in containers)),
        preempts=spec.get("preemptionPolicy") != "Never",
    )


def _usual(pod: Obj, spec: Obj, requests: Mapping[str, int]) -> tuple[int, int]:
    """The requests with every container that states none counted as a small one, so that many such pods do not pile up."""

    def filled(container: Obj) -> Obj:
        resources = container.get("resources") or {}
        stated = resources.get("requests") or {}
        return {**container, "resources": {**resources, "requests": {"cpu": "100m", "memory": str(DEFAULT_MEMORY), **stated}}}

    names = ("containers", "initContainers")
    if all({"cpu", "memory"} <= ((c.get("resources") or {}).get("requests") or {}).keys() for n in names for c in spec.get(n) or ()):
        return requests.get("cpu", 0), requests.get("memory", 0)
    whole = pods.requests({**pod, "spec": {**spec, **{name: [filled(c) for c in spec.get(name) or ()] for name in names}}})
    return whole.get("cpu", 0), whole.get("memory", 0)


def _preferred_nodes(entries: Sequence[Obj]) -> Sequence[tuple[int, NodeTerm]]:
    return tuple((int(e.get("weight") or 0), node_terms([e.get("preference") or {}])[0]) for e in entries if e.get("weight"))


def _preferred_pods(near: Obj, far: Obj, namespace: str, labels: Mapping[str, str]) -> Sequence[tuple[int, PodTerm]]:
    found = []
    for side, sign in ((near, 1), (far, -1)):
        for entry in side.get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            term = pod_terms([entry.get("podAffinityTerm") or {}], namespace, labels)[0]
            found.append((sign * int(entry.get("weight") or 0), term))
    return tuple(found)


@dataclass(slots=True)
class NodeInfo:
    """A node with the sums over the pods that are, or are assumed, there. `known` is False while only pods speak of it."""

    name: str
    known: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    unschedulable: bool = False
    taints: Sequence[Mapping[str, Any]] = ()
    allocatable: Mapping[str, int] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)  # name -> bytes
    pods: dict[str, PodInfo] = field(default_factory=dict)
    requested: Counter[str] = field(default_factory=Counter)
    usual_cpu: int = 0
    usual_memory: int = 0
    ports: Counter[HostPort] = field(default_factory=Counter)

    def add(self, pod: PodInfo) -> None:
        self.pods[pod.uid] = pod
        self._count(pod, 1)

    def remove(self, uid: str) -> PodInfo | None:
        pod = self.pods.pop(uid, None)
        if pod is not None:
            self._count(pod, -1)
        return pod

    def _count(self, pod: PodInfo, sign: int) -> None:
        for name, amount in pod.requests.items():
            self.requested[name] += sign * amount
        self.usual_cpu += sign * pod.usual[0]
        self.usual_memory += sign * pod.usual[1]
        for port in pod.host_ports:
            self.ports[port] += sign
            if not self.ports[port]:
                del self.ports[port]

    def describe(self, item: Item) -> None:
        """Take the node's own facts from its Item."""
        node = item.decode()
        spec, status = node.get("spec") or {}, node.get("status") or {}
        allocatable = status.get("allocatable") or {}
        self.known = True
        self.labels = item.labels
        self.unschedulable = bool(spec.get("unschedulable"))
        self.taints = tuple(spec.get("taints") or ())
        self.allocatable = {name: pods.amount(name, text) for name, text in allocatable.items()}
        self.images = {name: int(image.get("sizeBytes") or 0) for image in status.get("images") or () for name in image.get("names") or ()}


class Cluster:
    """All nodes with their pods, assumed ones included."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeInfo] = {}
        self._places: dict[str, str] = {}  # uid -> node
        self._assumed: set[str] = set()

    def nodes(self) -> Sequence[NodeInfo]:
        """The nodes that exist."""
        return [node for node in self._nodes.values() if node.known]

    def node(self, name: str) -> NodeInfo:
        found = self._nodes.get(name)
        if found is None:
            found = self._nodes[name] = NodeInfo(name)
        return found

    def set_node(self, item: Item) -> None:
        self.node(item.name).describe(item)

    def drop_node(self, name: str) -> None:
        """The node is gone; its pods are remembered until they go too, in case it comes back."""
        node = self._nodes.get(name)
        if node is not None:
            node.known = False
            self._tidy(node)

    def place(self, pod: PodInfo) -> None:
        """The pod is on its node, as the API says: replaces what was known or assumed."""
        self.remove(pod.uid)
        self._put(pod, pod.node)

    def remove(self, uid: str) -> PodInfo | None:
        """The pod is on no node any more."""
        self._assumed.discard(uid)
        name = self._places.pop(uid, None)
        if name is None:
            return None
        node = self._nodes[name]
        pod = node.remove(uid)
        self._tidy(node)
        return pod

    def assume(self, pod: PodInfo, node: str) -> None:
        """We have decided; the API does not know yet."""
        self.remove(pod.uid)
        self._put(pod, node)
        self._assumed.add(pod.uid)

    def forget(self, uid: str) -> bool:
        """Binding failed. False: the pod is no longer merely assumed."""
        return uid in self._assumed and self.remove(uid) is not None

    def assumed(self, uid: str) -> bool:
        return uid in self._assumed

    def placed(self, uid: str) -> bool:
        return uid in self._places

    def _put(self, pod: PodInfo, node: str) -> None:
        self.node(node).add(pod)
        self._places[pod.uid] = node

    def _tidy(self, node: NodeInfo) -> None:
        if not node.known and not node.pods:
            self._nodes.pop(node.name, None)
