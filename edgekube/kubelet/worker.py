"""One pod on this node, from its first sight to its last trace.

         update, exit, probe, timer
                 +----+
                 |    v      deleted, deadline, evicted, refused, all done
    [new] ----> syncing ---------------------------------------------------> ending
                 ^    |  runtime down: wait, try again                         | containers stopped, last status told,
                 +----+                                                        | sandbox, address, volumes, cgroup gone
                                                                               v
                                         gone from the API: logs removed <--- over ---> deleting: the API may forget it

Only the newest version of the pod counts. Two ways to stop: the *pod* is to end (`update` with a deletion, `fail`, `gone`), which
interrupts a pull or a hook and takes the pod down; or the *kubelet* stops, which cancels `run` and leaves everything as it is for the
next one to adopt.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgekube.api.types import Obj
from edgekube.kubelet import podspec
from edgekube.kubelet.context import NodeContext
from edgekube.kubelet.podsync import PodSync
from edgekube.kubelet.reporter import merge_status
from edgekube.kubelet.runtime.protocol import RuntimeFailure, Sandbox
from edgekube.kubelet.status import OURS, pod_status, rejected_status
from edgekube.lib.backoff import Backoff

log = logging.getLogger(__name__)


def _asked(pod: Obj) -> object:
    """All of a pod that others decide."""
    metadata = {name: value for name, value in pod["metadata"].items() if name not in ("resourceVersion", "managedFields")}
    foreign = [entry for entry in (pod.get("status") or {}).get("conditions") or () if entry["type"] not in OURS]
    return metadata, pod["spec"], foreign


DEADLINE = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
RETRY_CLEANUP = 2.0


class _Interrupted(Exception):
    """The pod is to end: leave what is under way."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The kubelet itself ends the pod."""

    reason: str
    message: str
    grace: float | None = None
    disruption: tuple[str, str] | None = None
    refused: bool = False  # it never ran here


class PodWorker:
    """See the module. Built for a pod of this node; `sandbox` is its live one, if any, from before."""

    def __init__(self, *, node: NodeContext, pod: Obj, sandbox: Sandbox | None = None) -> None:
        self._node, self.pod, self.uid = node, pod, pod["metadata"]["uid"]
        self._sync = PodSync(node, self, sandbox)
        self._wake = asyncio.Event()
        self._open: asyncio.Task[Any] | None = None  # a pass inside something that may be cancelled
        self._killing: asyncio.Task[Any] | None = None
        self._grace: float | None = None  # of the kill under way
        self._failure: Failure | None = None
        self._ending = podspec.is_deleting(pod)
        self._down = False  # nothing runs any more and the last status is out
        self._clean = False  # nothing is left on the node but logs
        self._gone = False
        self._backoff = Backoff(base=1.0, cap=10.0)
        self._asleep = True  # finished before this kubelet saw it: nothing to tell

    # what others call

    @property
    def sandbox(self) -> Sandbox | None:
        return self._sync.sandbox

    @property
    def ending(self) -> bool:
        return self._ending

    @property
    def over(self) -> bool:
        """It takes nothing of the node any more."""
        return self._down

    def view(self) -> Obj:
        """The pod with the newest status known here; treat it as read only."""
        status = self._node.reporter.current(self.uid)
        return self.pod if status is None else {**self.pod, "status": merge_status(self.pod.get("status") or {}, status)}

    @property
    def addresses(self) -> Sequence[str]:
        """Of the running pod, as the network gave them."""
        return self._sync.pod_ips(self.pod) if self.sandbox is not None else ()

    def update(self, pod: Obj) -> None:
        """A newer version from the API. What only echoes our own status wakes nobody."""
        before, self.pod = self.pod, pod
        self._node.reporter.seen(pod)
        if podspec.is_deleting(pod):
            self._end()
        if _asked(before) != _asked(pod):
            self._sync.unblock(everything=before["spec"] != pod["spec"])
            self._wake.set()

    def fail(self, failure: Failure) -> None:
        """Evicted, refused, past its deadline: ends the pod with this reason. The first one stays."""
        if self._failure is None and not self._down:
            self._failure = failure
            self._end()

    def gone(self) -> None:
        """The API no longer has the pod."""
        self._gone = True
        self._end()

    def settled(self) -> None:
        """The API has the newest status: a pod that ends may go on."""
        if self._ending:
            self._wake.set()

    def wake(self) -> None:
        self._sync.unblock()
        self._wake.set()

    def image_came(self) -> None:
        """Look again for an image whose back-off goes on: a pull is not tried before that is over, what is there is taken."""
        self._sync.unblock(everything=True)
        self._wake.set()

    def _end(self) -> None:
        self._ending = True
        if self._open is not None:
            self._open.cancel("the pod is to end")
        if self._killing is not None and self._grace is not None and self._wanted_grace() < self._grace:
            self._killing.cancel("less grace")
        self._wake.set()

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """See context.Interruptible."""
        if self._ending:
            raise _Interrupted
        self._open = asyncio.current_task()
        try:
            yield
        finally:
            self._open = None

    # the loop

    async def run(self) -> None:
        """Until the pod is gone from the API and from this node. Cancelled: leave everything as it is."""
        self._node.objects.hold(self.pod)
        while not (self._gone and self._clean):
            self._wake.clear()
            self._sync.due = None
            try:
                await self._pass()
                self._backoff.forget("")
            except _Interrupted:
                continue
            except (RuntimeFailure, OSError) as error:
                log.warning("pod pass failed", extra={"pod": str(podspec.key(self.pod)), "error": str(error)})
                self._sync.look_at(self._node.clock.monotonic() + self._backoff.delay(""))
            except Exception:  # a fault of ours must not leave the pod without its worker
                log.exception("pod pass broke", extra={"pod": str(podspec.key(self.pod))})
                self._sync.look_at(self._node.clock.monotonic() + self._backoff.delay(""))
            await self._pause()
        self._forget()

    async def _pass(self) -> None:
        """In a task of its own, so that interrupting it does not look like the kubelet stopping."""
        work = self._take_down() if self._ending else self._converge()
        (result,) = await asyncio.gather(work, return_exceptions=True)
        if isinstance(result, asyncio.CancelledError):
            raise _Interrupted
        if result is not None:
            raise result

    async def _pause(self) -> None:
        if self._wake.is_set():
            return
        due = self._sync.due
        timeout = None if due is None else max(0.0, due - self._node.clock.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._wake.wait()

    # syncing

    async def _converge(self) -> None:
        if podspec.is_finished(self.pod) and self._asleep:
            self._ending = True
            self._wake.set()
            return
        self._asleep = False
        self._node.objects.hold(self.pod)
        await self._sync.observe(self.view())
        for _ in range(1000):
            if self._past_deadline():
                self._node.events.pod(self.pod, *DEADLINE)
                self.fail(Failure(*DEADLINE))
                return
            pod = self.view()
            await self._end_for_a_while(pod)
            plan = self._sync.plan(pod)
            if plan.finished:
                self._end()
                return
            if not plan.idle:
                self._report()
            acted = await self._sync.act(pod, plan)
            await self._sync.observe(self.view())
            self._report()
            if self._ending:
                return
            if not acted:
                break
        if self._sync.sandbox is not None and plan.idle:
            await self._sync.refresh_volumes(self.pod)

    async def _end_for_a_while(self, pod: Obj) -> None:
        """What runs must end, but not the pod: `may_run` says when it starts again."""
        limit = self._node.must_end(pod)
        if limit is not None and any(info.state == "running" for info in self._sync.containers):
            await self._sync.killer.kill_pod(pod, self._sync.containers, grace=min(limit, podspec.grace_period(pod)))
            await self._sync.observe(self.view())
            self._report()

    def _past_deadline(self) -> bool:
        """Also says when to look again."""
        seconds = self.pod["spec"].get("activeDeadlineSeconds")
        started = podspec.started_at(self.view())
        if seconds is None or started is None:
            return False
        left = float(seconds) - self._node.clock.age(started)
        if left > 0:
            self._sync.look_at(self._node.clock.monotonic() + left)
        return left <= 0

    def _report(self, *, over: bool = False, ended: bool = False) -> None:
        view, failure = self.view(), self._failure
        if failure is not None and failure.refused:
            status = rejected_status(view, reason=failure.reason, message=failure.message, now=self._node.clock.now())
        else:
            why = None if failure is None else (failure.reason, failure.message)
            seen = self._sync.observation(
                view, over=over, ended=ended, failure=why, disruption=None if failure is None else failure.disruption
            )
            status = pod_status(view, seen)
        self._node.reporter.report(self.pod, status)

    # ending

    async def _take_down(self) -> None:
        if not self._down:
            await self._stop_containers()
        if not self._clean:
            await self._clean_up()
        if self._clean and podspec.is_deleting(self.pod) and not self._gone:
            self._node.reporter.delete(self.pod)

    async def _stop_containers(self) -> None:
        """Kill, with the grace that is left; a shorter one starts the kill again."""
        node = self._node
        node.probes.terminating(self.uid)
        await self._sync.observe(self.view())
        running = [info for info in self._sync.containers if info.state == "running"]
        silent = self._asleep and podspec.is_finished(self.pod) and not self._sync.containers
        if not silent:
            self._report(over=not running)
        while any(info.state == "running" for info in self._sync.containers):
            (result,) = await asyncio.gather(self._kill(), return_exceptions=True)
            if result is not None and not isinstance(result, asyncio.CancelledError):
                raise result
            await self._sync.observe(self.view())
        node.probes.forget(self.uid)
        if not silent:
            self._report(over=True, ended=True)
        self._down = True

    async def _kill(self) -> None:
        self._killing, self._grace = asyncio.current_task(), self._wanted_grace()
        try:
            await self._sync.killer.kill_pod(self.pod, self._sync.containers, grace=self._grace)
        finally:
            self._killing = None

    def _wanted_grace(self) -> float:
        if self._failure is not None and self._failure.grace is not None and not podspec.is_deleting(self.pod):
            return self._failure.grace
        return podspec.grace_period(self.pod)

    async def _clean_up(self) -> None:
        """Give back what the pod had of the node. Its containers go last, once the API knows how they ended."""
        node = self._node
        if not (self._gone or node.reporter.settled(self.uid)):
            return  # the reporter wakes us when the API has the status
        for info in self._sync.containers:
            await node.runtime.remove(info.id)
        await node.network.detach(self.uid)
        await node.runtime.remove_sandbox(self.uid)
        self._sync.sandbox = None
        removed = await node.volumes.remove(self.uid) and await asyncio.to_thread(node.groups.remove_pod, self.uid)
        if not removed:
            self._sync.look_at(node.clock.monotonic() + RETRY_CLEANUP)
            return
        self._sync.containers = ()
        node.objects.release(self.uid)
        node.images.forget(self.uid)
        self._clean = True

    def _forget(self) -> None:
        self._node.reporter.forget(self.uid)
        self._node.objects.release(self.uid)
        self._node.probes.forget(self.uid)
