"""Startup, liveness and readiness of the containers of this node: when to probe, and what the verdicts add up to.

No task and no wake-up of its own between probes: each probe has one timer in the event loop, and a task only while it runs. A container
without a startup probe is started at once, one without a readiness probe is ready once it is started. A failed liveness or startup probe
holds that container's probes until its replacement is watched. Adopted containers keep the readiness that the pod's status says they had.
Upstream: pkg/kubelet/prober (worker.go, prober_manager.go).
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from edgekube.api.types import Obj
from edgekube.kubelet import prober
from edgekube.kubelet.happenings import PodEvents
from edgekube.kubelet.plan import Verdicts
from edgekube.kubelet.prober import Result, Target
from edgekube.kubelet.runtime.protocol import ContainerInfo, Runtime
from edgekube.lib.clock import Clock
from edgekube.lib.metrics import counter
from edgekube.lib.tasks import TaskScope

STARTUP, LIVENESS, READINESS = "startupProbe", "livenessProbe", "readinessProbe"
TITLES = {STARTUP: "Startup", LIVENESS: "Liveness", READINESS: "Readiness"}
TOTAL = counter("prober_probe_total", "Probes by type and result.", ("probe_type", "result"))


@dataclass(slots=True)
class _Probe:
    kind: str
    spec: Obj
    good: bool | None  # the verdict that counts now; None: none yet
    streak: str = ""
    count: int = 0
    timer: asyncio.TimerHandle | None = None
    running: bool = False


@dataclass(slots=True)
class _Watched:
    pod: Obj
    info: ContainerInfo
    target: Target
    born: float  # loop time at which the container started
    probes: dict[str, _Probe] = field(default_factory=dict)
    held: bool = False

    @property
    def started(self) -> bool:
        startup = self.probes.get(STARTUP)
        return startup is None or startup.good is True

    @property
    def ready(self) -> bool:
        readiness = self.probes.get(READINESS)
        return self.started and (readiness is None or readiness.good is True)


class Probes:
    """All probes of this node. Use it as an async context manager."""

    def __init__(self, *, runtime: Runtime, clock: Clock, events: PodEvents, spread: bool = True) -> None:
        self._runtime, self._clock, self._events, self._spread = runtime, clock, events, spread
        self._watched: dict[str, dict[str, _Watched]] = {}  # pod uid -> container id
        self._notify: Callable[[str], None] = lambda _uid: None
        self._scope = TaskScope("probes")

    async def __aenter__(self) -> "Probes":
        return self

    async def __aexit__(self, *_: object) -> None:
        for uid in list(self._watched):
            self.forget(uid)
        await self._scope.close()

    def on_change(self, notify: Callable[[str], None]) -> None:
        """Call `notify(pod_uid)` when a verdict changes."""
        self._notify = notify

    def watch(self, pod: Obj, container: Obj, info: ContainerInfo, address: str, *, old: Obj | None = None) -> None:
        """A container that runs. Idempotent; `old` is its status if it ran before this kubelet did."""
        known = self._watched.setdefault(pod["metadata"]["uid"], {})
        if info.id in known:
            known[info.id].pod = pod
            return
        for stale in [one for one in known.values() if one.info.name == info.name]:
            self._end(stale)
            del known[stale.info.id]
        age = max(0.0, self._clock.age(info.started_at or info.created_at, foreign=True))
        target = Target(container, info.id, address)
        watched = _Watched(pod, info, target, asyncio.get_running_loop().time() - age)
        adopted = old is not None and old.get("containerID") == f"podman://{info.id}"
        for kind in (STARTUP, LIVENESS, READINESS):
            if spec := container.get(kind):
                watched.probes[kind] = _Probe(kind, spec, _initial(kind, old if adopted else None))
        known[info.id] = watched
        self._begin(watched, spread=adopted and self._spread)

    def forget(self, uid: str) -> None:
        """The pod is over."""
        for watched in self._watched.pop(uid, {}).values():
            self._end(watched)

    def terminating(self, uid: str) -> None:
        """Only readiness matters from now on: nothing will be restarted."""
        for watched in self._watched.get(uid, {}).values():
            for kind in (STARTUP, LIVENESS):
                if (one := watched.probes.get(kind)) is not None:
                    _cancel(one)

    def verdicts(self, uid: str) -> Verdicts:
        known = self._watched.get(uid, {})
        return Verdicts(
            failed_liveness=frozenset(i for i, one in known.items() if _failed(one, LIVENESS)),
            failed_startup=frozenset(i for i, one in known.items() if _failed(one, STARTUP)),
            started=frozenset(i for i, one in known.items() if one.started),
        )

    def ready(self, uid: str) -> frozenset[str]:
        return frozenset(i for i, one in self._watched.get(uid, {}).items() if one.ready)

    # one container

    def _begin(self, watched: _Watched, *, spread: bool = False) -> None:
        """Arm what may run now: the startup probe alone, or the other two."""
        kinds = (STARTUP,) if not watched.started else (LIVENESS, READINESS)
        for kind in kinds:
            one = watched.probes.get(kind)
            if one is not None and one.timer is None and not one.running:
                jitter = random.random() * prober.period_of(one.spec) if spread else 0.0
                self._arm(watched, one, max(watched.born + prober.delay_of(one.spec), asyncio.get_running_loop().time() + jitter))

    def _arm(self, watched: _Watched, one: _Probe, due: float) -> None:
        one.timer = asyncio.get_running_loop().call_at(due, self._fire, watched, one)

    def _end(self, watched: _Watched) -> None:
        watched.held = True
        for one in watched.probes.values():
            _cancel(one)

    def _fire(self, watched: _Watched, one: _Probe) -> None:
        one.timer = None
        if not watched.held:
            one.running = True
            self._scope.spawn(self._run(watched, one), name=f"{watched.info.name}/{one.kind}")

    async def _run(self, watched: _Watched, one: _Probe) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            result = await prober.probe(one.spec, watched.target, runtime=self._runtime)
        finally:
            one.running = False
        if watched.held:
            return
        self._judge(watched, one, result)
        if not watched.held and not (one.kind == STARTUP and one.good):
            self._arm(watched, one, max(began + prober.period_of(one.spec), loop.time()))

    def _judge(self, watched: _Watched, one: _Probe, result: Result) -> None:
        title, name = TITLES[one.kind], watched.info.name
        TOTAL.labels(title, {prober.FAILURE: "failed", prober.ERROR: "unknown"}.get(result.verdict, "successful")).inc()
        if result.verdict == prober.ERROR:
            message = f"{title} probe errored and resulted in unknown state: {result.text}"
            self._events.container(watched.pod, name, "Unhealthy", message, warning=True)
            return
        if result.verdict == prober.FAILURE:
            self._events.container(watched.pod, name, "Unhealthy", f"{title} probe failed: {result.text}", warning=True)
        elif result.verdict == prober.WARNING:
            self._events.container(watched.pod, name, "ProbeWarning", f"{title} probe warning: {result.text}", warning=True)
        good = result.verdict != prober.FAILURE
        one.count = one.count + 1 if one.streak == str(good) else 1
        one.streak = str(good)
        successes, failures = prober.thresholds(one.spec)
        if one.count < (successes if good else failures) or one.good is good:
            return
        one.good = good
        if not good and one.kind != READINESS:
            self._end(watched)
        elif one.kind == STARTUP:
            self._begin(watched)
        self._notify(watched.pod["metadata"]["uid"])


def _initial(kind: str, old: Obj | None) -> bool | None:
    """What counts before the first probe has run."""
    if kind == LIVENESS:
        return True
    if old is None:
        return None if kind == STARTUP else False
    return (True if old.get("started") else None) if kind == STARTUP else bool(old.get("ready"))


def _failed(watched: _Watched, kind: str) -> bool:
    one = watched.probes.get(kind)
    return one is not None and one.good is False


def _cancel(one: _Probe) -> None:
    if one.timer is not None:
        one.timer.cancel()
        one.timer = None
