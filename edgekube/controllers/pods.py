"""The facts about a pod that controllers decide on, read once per version of the pod."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from edgekube.api.item import Item
from edgekube.api.pods import addresses, named_ports
from edgekube.api.types import Key, Obj
from edgekube.lib.clock import Clock, parse_rfc3339

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


@dataclass(frozen=True, slots=True)
class PodFacts:
    """Times are epoch seconds, 0 when unknown."""

    key: Key
    uid: str
    node: str
    phase: str
    deleting: bool
    ready: bool
    ready_at: float
    created_at: float
    restarts: int
    sidecar_restarts: int
    deletion_cost: int
    ips: tuple[str, ...]
    hostname: str
    subdomain: str
    ports: tuple[tuple[str, str, int], ...]  # (name, protocol, number) of named container ports
    ready_since: str = ""
    host_network: bool = False

    @property
    def terminal(self) -> bool:
        """It has ended for good."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def active(self) -> bool:
        """It counts as a replica."""
        return not self.terminal and not self.deleting

    def available(self, min_ready_seconds: int, now: float) -> bool:
        """Ready for long enough."""
        return self.ready and (min_ready_seconds == 0 or (self.ready_at > 0 and self.ready_at + min_ready_seconds <= now))


def epoch(text: str | None) -> float:
    """An API time as epoch seconds; 0 for none."""
    return parse_rfc3339(text).timestamp() if text else 0.0


def pod_facts(item: Item) -> PodFacts:
    """What `item`, a pod, says."""
    return facts_of(item.decode())


def facts_of(pod: Obj) -> PodFacts:
    """The same from a decoded pod."""
    about, spec, status = pod["metadata"], pod.get("spec", {}), pod.get("status", {})
    ready: Obj = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), {})
    sidecars = {c["name"] for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}
    inits = [s for s in status.get("initContainerStatuses") or () if s.get("name") in sidecars]
    return PodFacts(
        key=Key(about.get("namespace", ""), about["name"]),
        uid=about.get("uid", ""),
        node=spec.get("nodeName", ""),
        phase=status.get("phase", ""),
        deleting="deletionTimestamp" in about,
        ready=ready.get("status") == "True",
        ready_at=epoch(ready.get("lastTransitionTime")),
        ready_since=ready.get("lastTransitionTime") or "",
        created_at=epoch(about.get("creationTimestamp")),
        restarts=max((s.get("restartCount", 0) for s in status.get("containerStatuses") or ()), default=0),
        sidecar_restarts=max((s.get("restartCount", 0) for s in inits), default=0),
        deletion_cost=_cost(about.get("annotations") or {}),
        ips=addresses(pod),
        hostname=spec.get("hostname", ""),
        subdomain=spec.get("subdomain", ""),
        ports=named_ports(pod),
        host_network=bool(spec.get("hostNetwork")),
    )


def steady(pod: PodFacts, clock: Clock) -> PodFacts:
    """The same, as if the clock had not jumped since the pod became ready."""
    if not pod.ready_at:
        return pod
    ready_at = clock.now().timestamp() - clock.age(datetime.fromtimestamp(pod.ready_at, UTC))
    return replace(pod, ready_at=ready_at) if abs(ready_at - pod.ready_at) > 1 else pod


def _cost(annotations: dict[str, str]) -> int:
    text = annotations.get(DELETION_COST, "0")
    try:
        return int(text) if text == "0" or text.lstrip("-")[:1] not in ("0", "+", "") else 0
    except ValueError:
        return 0
