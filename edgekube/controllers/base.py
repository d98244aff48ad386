"""What a controller is: a name, what wakes it, and `reconcile(key)`. Everything around that belongs to the runner."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.client.cache import Cache
from edgekube.client.derived import Derived
from edgekube.client.protocol import Client
from edgekube.client.recorder import Recorder
from edgekube.controllers.pods import PodFacts
from edgekube.lib.clock import Clock
from edgekube.lib.pki import LEAF_LIFE


@dataclass(frozen=True, slots=True)
class Result:
    """`after`: look at the key again in so many seconds, whatever happens."""

    after: float | None = None


DONE = Result()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What every controller works with. `client` has the controller's own identity; `cache` and `pods` are shared, read only."""

    client: Client
    cache: Cache
    events: Recorder
    clock: Clock
    pods: Derived[PodFacts]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the cluster's operator decides for controllers."""

    ca_pem: str = ""  # the bundle published to every namespace
    cluster_cidrs: Sequence[str] = ("10.42.0.0/16",)
    authority: Path | None = None  # key and certificate that sign; None: nothing is signed
    certificate_life: timedelta = LEAF_LIFE  # of certificates that are signed on request
    serving: Path | None = None  # the API server's own certificate: nobody else gets one for its names and addresses
    listen_seconds: float = 16.0  # for a sign of life of a node whose name is wanted: longer than kubelets wait between two
    own_node: str = ""  # the server's own node
    terminated_pods: int = 12500  # finished pods kept before the oldest are deleted
    listens: Mapping[str, Mapping[tuple[str, int], str]] = field(default_factory=dict)  # node ("": all) -> (protocol, port) -> who has it
    node_grace: float = 50.0  # seconds of silence after which a node counts as lost
    node_startup_grace: float = 60.0  # the same for one that has never reported
    node_loss: str = "stay"  # what happens to pods of lost nodes that do not say it themselves: see evictions.py
    fence_after: float = 60.0  # what a node promises, as far as it is not known any more


@dataclass(frozen=True, slots=True)
class Owns:
    """A change of `kind` wakes the object that its controller reference names, before and after the change."""

    kind: Kind


@dataclass(frozen=True, slots=True)
class Maps:
    """A change of `kind` wakes the keys that `function(old, new)` yields."""

    kind: Kind
    function: Callable[[Item | None, Item | None], Iterable[Hashable]]


class Controller(Protocol):
    """Keys are those of `primary` unless `watches` yields others. `reconcile` may be called at any time, for what is gone too."""

    @property
    def name(self) -> str:
        """As in upstream's user name: system:serviceaccount:kube-system:<name>."""

    @property
    def primary(self) -> Kind | None:
        """The kind whose keys it works on; None if all keys come from `watches`."""

    @property
    def workers(self) -> int: ...

    @property
    def deadline(self) -> float:
        """Seconds one reconcile may take."""

    def watches(self) -> Sequence[Owns | Maps]: ...

    async def reconcile(self, key: Any) -> Result: ...


class Base:
    """The usual values; a controller overrides what differs."""

    name = ""
    primary: Kind | None = None
    workers = 4
    deadline = 120.0

    def __init__(self, tools: Tools) -> None:
        self.client, self.cache, self.events, self.clock, self.pods = tools.client, tools.cache, tools.events, tools.clock, tools.pods

    def watches(self) -> Sequence[Owns | Maps]:
        return ()
