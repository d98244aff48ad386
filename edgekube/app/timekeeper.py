"""Time, watched: a jump of the clock becomes one log line, one Event of the Node, and a look at the certificates; a steady one is believed.

Waits for the kernel to say that the clock was set (no polling) and wakes up by itself only to move the floor: an hour after the start or
the last jump, every six hours then. Writes <data-dir>/time-floor through the clock, and Events. Nothing restarts, no timer moves: they
run on the monotonic clock.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from edgekube.api.types import Obj
from edgekube.client.protocol import Client
from edgekube.client.recorder import WARNING, Recorder
from edgekube.lib.clock import Clock, rfc3339
from edgekube.lib.shiftedclock import ShiftedClock
from edgekube.lib.timefloor import SAVE_SECONDS, SETTLED_SECONDS, FlooredClock, floor_file

log = logging.getLogger(__name__)

_SMALL = 60.0  # seconds; what NTP puts right at every boot is worth a line, not an Event


class TimeKeeper:
    """Component. `on_jump` is called after each jump, for those who compare dates (certificates)."""

    name = "time"

    def __init__(self, *, clock: FlooredClock, client: Client, node_name: str, on_jump: Sequence[Callable[[], None]] = ()) -> None:
        self._clock, self._node_name, self._on_jump = clock, node_name, on_jump
        self._recorder = Recorder(client=client, component="edgekube", clock=clock, host=node_name)
        self._told = clock.jumps

    async def run(self, ready: asyncio.Event) -> None:
        """Until cancelled; the floor as believed so far is kept then."""
        try:
            async with asyncio.TaskGroup() as group, _watch(self._clock.system) as changed:
                group.create_task(self._recorder.run(), name="time/events")
                ready.set()
                await self._keep(changed)
        finally:
            self._clock.keep()

    async def _keep(self, changed: Callable[[], Awaitable[None]]) -> None:
        left = SETTLED_SECONDS
        while True:
            try:
                async with asyncio.timeout(left):
                    await changed()
            except TimeoutError:
                if not self._jumped():
                    await asyncio.to_thread(self._clock.believe)
                    left = SAVE_SECONDS
                    continue
            else:
                self._jumped()
            left = SETTLED_SECONDS

    def _jumped(self) -> bool:
        now = self._clock.now()
        if self._clock.jumps == self._told:
            return False
        self._told, seconds = self._clock.jumps, self._clock.last_jump
        message = plan_message(seconds)
        log.warning("clock jumped", extra={"seconds": round(seconds, 1), "now": rfc3339(now)})
        if abs(seconds) >= _SMALL:
            node: Obj = {"kind": "Node", "name": self._node_name, "uid": self._node_name, "apiVersion": "v1"}
            self._recorder.event(node, WARNING, "ClockJumped", message)
        for call in self._on_jump:
            call()
        return True


def plan_message(seconds: float) -> str:
    """What the Event says."""
    days, rest = divmod(round(abs(seconds)), 86400)
    amount = f"{days}d{rest // 3600}h" if days else f"{rest // 60}m{rest % 60}s"
    return f"The clock of this machine jumped {'forward' if seconds > 0 else 'back'} by {amount}; nothing was restarted"


def make_clock(data_dir: Path, offset_file: str = "") -> FlooredClock:
    """The clock of a process. `offset_file` is for tests: see lib.shiftedclock."""
    system: Clock | None = ShiftedClock(Path(offset_file)) if offset_file else None
    return FlooredClock(floor_file(data_dir), system=system)


@contextlib.asynccontextmanager
async def _watch(system: Clock) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Gives what returns once the clock was set. Where the kernel can not tell (an old one), nobody is told: each look at the clock
    notices by itself."""
    if isinstance(system, ShiftedClock):
        yield system.changed
        return
    from edgekube.lib.timerfd import ClockWatch

    with contextlib.ExitStack() as stack:
        try:
            watch = stack.enter_context(ClockWatch())
        except OSError as error:
            log.warning("jumps of the clock are not watched", extra={"error": str(error)})
            yield _never
        else:
            yield watch.changed


async def _never() -> None:
    await asyncio.Event().wait()
