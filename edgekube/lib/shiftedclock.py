"""The system clock with a shift that can be changed from outside while the process runs: for tests of clocks in 1970 and of jumps.

The file holds the shift in seconds; a missing or odd one is no shift. Only the hidden setting `test-clock-offset-file` leads here.
"""

import asyncio
import contextlib
from datetime import datetime, timedelta
from pathlib import Path

from edgekube.lib.clock import SystemClock

POLL_SECONDS = 0.1


class ShiftedClock(SystemClock):
    """Satisfies clock.Clock."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen = self._shift()

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self._shift())

    async def changed(self) -> None:
        """Returns once the file says something else."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if (shift := self._shift()) != self._seen:
                self._seen = shift
                return

    def _shift(self) -> float:
        with contextlib.suppress(OSError, ValueError):
            return float(self._file.read_text())
        return 0.0
