"""Which pods the peers of NetworkPolicies select, kept current by single changes. Pure: pods are told or asked for, nothing is watched.

A group is one (namespaces, pods) selection; policies that select alike share it. A pod that comes, changes or goes is matched only with the
groups that can contain it: those of its own namespace, and those that select namespaces.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from edgekube.api.selectors import Selector
from edgekube.api.types import Key


@dataclass(frozen=True, slots=True)
class Member:
    """A pod as others meet it. `node` is "" for what belongs to no node. `ports`: (name, protocol, number)."""

    node: str
    addresses: tuple[str, ...]
    ports: tuple[tuple[str, str, int], ...] = ()


class PeerKey(NamedTuple):
    """One selection: pods of one namespace, or of all that `namespaces` selects."""

    namespace: str
    namespaces: Selector | None
    pods: Selector


class Candidate(NamedTuple):
    """A pod that may be a member; `member` is None for one that has no address of its own."""

    key: Key
    labels: Mapping[str, str]
    member: Member | None


@dataclass(slots=True)
class _Group:
    spaces: set[str] | None = None  # None: all of them
    members: dict[Key, Member] = field(default_factory=dict)
    users: set[Key] = field(default_factory=set)


class PeerIndex:
    """`pods(namespace)` yields what there is now ("" for all namespaces): asked once for each new group."""

    def __init__(self, pods: Callable[[str], Iterable[Candidate]]) -> None:
        self._pods = pods
        self._groups: dict[PeerKey, _Group] = {}
        self._own: dict[str, set[PeerKey]] = {}
        self._wide: set[PeerKey] = set()
        self._held: dict[Key, frozenset[PeerKey]] = {}
        self._groups_of: dict[Key, set[PeerKey]] = {}
        self._labels: dict[str, Mapping[str, str]] = {}

    def __len__(self) -> int:
        """How many groups there are: with none, pods need not be told."""
        return len(self._groups)

    def hold(self, policy: Key, keys: Iterable[PeerKey]) -> None:
        """The groups that `policy` needs from now on (none: it is gone)."""
        before, after = self._held.pop(policy, frozenset()), frozenset(keys)
        for key in after - before:
            if key not in self._groups:
                self._make(key)
            self._groups[key].users.add(policy)
        for key in before - after:
            self._groups[key].users.discard(policy)
            if not self._groups[key].users:
                self._drop(key)
        if after:
            self._held[policy] = after

    def members(self, key: PeerKey) -> Mapping[Key, Member]:
        return self._groups[key].members

    def spaces(self, key: PeerKey) -> Iterable[str] | None:
        """The namespaces whose pods the group can have; None: all."""
        return self._groups[key].spaces

    def pod(self, pod: Candidate) -> set[Key]:
        """A pod came, changed or went (no member). The policies that see a difference."""
        touched: set[Key] = set()
        possible = self._own.get(pod.key.namespace, set()) | self._wide if pod.member is not None else set[PeerKey]()
        for key in possible | self._groups_of.get(pod.key, set()):
            if self._place(key, pod):
                touched |= self._groups[key].users
        return touched

    def namespace(self, name: str, labels: Mapping[str, str] | None) -> set[Key]:
        """A namespace came, changed its labels or went (None). The policies that see a difference."""
        if labels is None:
            self._labels.pop(name, None)
        else:
            self._labels[name] = labels
        touched: set[Key] = set()
        for key in self._wide:
            group = self._groups[key]
            if group.spaces is None or key.namespaces is None:
                continue
            wanted = labels is not None and key.namespaces.matches(labels)
            if wanted == (name in group.spaces):
                continue
            (group.spaces.add if wanted else group.spaces.discard)(name)
            for pod in self._pods(name):
                self._place(key, pod)
            touched |= group.users
        return touched

    def _place(self, key: PeerKey, pod: Candidate) -> bool:
        """Put the pod into the group or take it out; whether that changed anything."""
        group = self._groups[key]
        inside = group.spaces is None or pod.key.namespace in group.spaces
        if pod.member is not None and inside and key.pods.matches(pod.labels):
            if group.members.get(pod.key) == pod.member:
                return False
            group.members[pod.key] = pod.member
            self._groups_of.setdefault(pod.key, set()).add(key)
            return True
        if pod.key not in group.members:
            return False
        del group.members[pod.key]
        self._leave(pod.key, key)
        return True

    def _make(self, key: PeerKey) -> None:
        group = self._groups[key] = _Group()
        if key.namespaces is None:
            group.spaces = {key.namespace}
            self._own.setdefault(key.namespace, set()).add(key)
        else:
            self._wide.add(key)
            if not key.namespaces.empty:
                group.spaces = {name for name, labels in self._labels.items() if key.namespaces.matches(labels)}
        for space in ("",) if group.spaces is None else group.spaces:
            for pod in self._pods(space):
                self._place(key, pod)

    def _drop(self, key: PeerKey) -> None:
        for pod in self._groups.pop(key).members:
            self._leave(pod, key)
        self._wide.discard(key)
        own = self._own.get(key.namespace, set())
        own.discard(key)
        if not own:
            self._own.pop(key.namespace, None)

    def _leave(self, pod: Key, key: PeerKey) -> None:
        groups = self._groups_of[pod]
        groups.discard(key)
        if not groups:
            del self._groups_of[pod]
