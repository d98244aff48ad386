"""Fenced pods: without contact to the server this node ends them in time, so that the server may start them elsewhere.

    contact   = a renewal of the Lease was answered; it counts from the moment it was *sent*, on the clock that goes on in sleep
    dead by   = contact + T (what the Node promises) less a little; before that they are asked to end for as long as they ask for (at most
                a third of T), then killed
    may start = in contact, the Lease without the server's mark, and the server has said since that the pod is still to run here

What runs while this process is dead is ended by the guard (fenceguard.py); without the guard no fenced pod starts. After a reboot nothing
is known of any contact, so nothing fenced starts before there was one. Wall clocks play no part. The decisions are the functions below;
the other side, and why two never run at once, is controllers/fencing.py.

A machine that was suspended for longer than T wakes with such pods still there, for the milliseconds until the timer fires.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekube.api import nodeloss
from edgekube.api.catalog import POD
from edgekube.api.types import Obj
from edgekube.client.protocol import Client
from edgekube.errors import ApiError
from edgekube.kubelet.fenceguard import FenceGuard
from edgekube.kubelet.podspec import grace_period
from edgekube.lib.clock import Clock
from edgekube.lib.tasks import TaskScope
from edgekube.lib.timerfd import sleep_boottime

log = logging.getLogger(__name__)

NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Contact:
    """What is known of the server. `dead_by`: boot time by which fenced pods must have ended; `marked`: it gives them to others."""

    dead_by: float = NEVER
    marked: bool = False


def plan_contact(sent: float, promise: float, *, marked: bool) -> Contact:
    """After the answer to a renewal that was sent at boot time `sent`."""
    return Contact(sent + promise - min(1.0, promise / 10), marked)


def stop_at(contact: Contact, promise: float, grace: float) -> float:
    """When a fenced pod that wants `grace` seconds to end is asked to."""
    return contact.dead_by - min(grace + promise / 20, promise / 3)


def why_not(contact: Contact, promise: float, grace: float, now: float, *, confirmed: bool) -> str | None:
    """Why a fenced pod must not start now; None if it may."""
    if now >= stop_at(contact, promise, grace):
        return "the node has no contact to the server, and the pod is fenced"
    if contact.marked:
        return "the server gives the fenced pods of this node to others"
    return None if confirmed else "the server has not said yet that the pod is still to run here"


@dataclass(frozen=True, slots=True)
class Fencing:
    """What a fence is built from. `client` is the server itself: nothing remembered. `kill` ends the processes of a pod."""

    client: Client
    guard: FenceGuard
    kill: Callable[[str], None]


class Fence:
    """See the module. `recheck` makes the kubelet look at its pods again; `fenced_pods` are those it has."""

    def __init__(
        self,
        *,
        promise: float,
        parts: Fencing,
        clock: Clock,
        recheck: Callable[[], None],
        fenced_pods: Callable[[], Sequence[Obj]],
    ) -> None:
        self.promise = promise
        self._client, self._clock, self._guard = parts.client, clock, parts.guard
        self._recheck, self._fenced_pods, self._kill = recheck, fenced_pods, parts.kill
        self._contact = Contact(parts.guard.load())
        self._confirmed: set[str] = set()
        self._asking: set[str] = set()
        self._epoch = 0  # grows with each contact after none: what was asked before counts no more
        self._changed = asyncio.Event()
        self._adopted = False
        self._scope = TaskScope("fence")

    # what the kubelet asks

    def may_run(self, pod: Obj) -> str | None:
        """Why the pod's containers must not be started now."""
        if not nodeloss.fenced(pod):
            return None
        uid = pod["metadata"]["uid"]
        grace, confirmed = grace_period(pod), uid in self._confirmed
        why = why_not(self._contact, self.promise, grace, self._clock.boottime(), confirmed=confirmed)
        if why is not None:
            if not confirmed and not self._contact.marked and self._in_contact(grace):
                self._ask(pod)
            return why
        self.pods_changed()
        return None if self._guard.alive else f"the guard of fenced pods does not run: {self._guard.trouble}"

    def must_end(self, pod: Obj) -> float | None:
        """Seconds within which the pod's containers must have ended; None: they may run on."""
        if not nodeloss.fenced(pod) or self._in_contact(grace_period(pod)):
            return None
        return max(0.0, self._contact.dead_by - self._clock.boottime())

    def _in_contact(self, grace: float) -> bool:
        return self._clock.boottime() < stop_at(self._contact, self.promise, grace)

    # what happens

    def renewed(self, sent: float, lease: Obj) -> None:
        """A renewal that was sent at boot time `sent` has been answered with `lease`."""
        was_out = not self._in_contact(float("inf")) or self._contact.marked
        marked = nodeloss.MARK in (lease["metadata"].get("annotations") or {})
        if was_out:
            self._confirmed.clear()
            self._epoch += 1
        self._contact = plan_contact(sent, self.promise, marked=marked)
        self.pods_changed()
        if was_out:
            self._recheck()

    def adopted(self) -> None:
        """The pods that ran before are known: until then what the last process told the guard stands."""
        self._adopted = True
        self.pods_changed()

    def pods_changed(self) -> None:
        """A pod came or went, or the contact is another: the guard must know."""
        if not self._adopted:
            return
        uids = [pod["metadata"]["uid"] for pod in self._fenced_pods()]
        self._guard.keep(self._contact.dead_by, uids)
        self._changed.set()

    async def run(self) -> None:
        """Ends what must end, when it must."""
        try:
            while True:
                self._changed.clear()
                now = self._clock.boottime()
                due = [stop_at(self._contact, self.promise, grace_period(pod)) for pod in self._fenced_pods()]
                if now >= self._contact.dead_by:
                    for pod in self._fenced_pods():
                        await asyncio.to_thread(self._kill, pod["metadata"]["uid"])
                    self._recheck()
                    await self._changed.wait()
                    continue
                if any(moment <= now for moment in due):
                    log.warning("no contact to the server: fenced pods are ended", extra={"pods": len(due)})
                    self._recheck()
                await self._until(min([moment for moment in due if moment > now], default=self._contact.dead_by))
        finally:
            await self._scope.close()

    async def _until(self, moment: float) -> None:
        """That boot time, or a change."""
        async with TaskScope("fence-timer") as scope:
            timer = scope.spawn(sleep_boottime(moment - self._clock.boottime()), name="timer")
            change = scope.spawn(self._changed.wait(), name="change")
            await asyncio.wait((timer, change), return_when=asyncio.FIRST_COMPLETED)

    def _ask(self, pod: Obj) -> None:
        """Whether it is still to run here: what we remember of it may be older than the loss of contact."""
        uid = pod["metadata"]["uid"]
        if uid not in self._asking:
            self._asking.add(uid)
            self._scope.spawn(self._confirm(pod), name=f"confirm/{uid}")

    async def _confirm(self, pod: Obj) -> None:
        about, uid = pod["metadata"], pod["metadata"]["uid"]
        epoch = self._epoch
        try:
            with contextlib.suppress(ApiError):
                found = await self._client.get(POD, about["name"], about["namespace"])
                same = found["metadata"]["uid"] == uid and "deletionTimestamp" not in found["metadata"]
                if same and epoch == self._epoch and self._in_contact(float("inf")):
                    self._confirmed.add(uid)
        finally:
            self._asking.discard(uid)
        self._recheck()
