"""How long ago something was, on a clock that jumps: between two jumps wall time runs evenly, so each stretch is an era of its own.

    wall time:   ... 2026-05-01 10:00 | jump | 2029-05-01 09:00 ... 09:10 | jump back | 2026-05-01 10:12 ...
    an era is (since when on the boot clock, wall time minus boot clock)

A moment written down in an earlier era is placed there: its age is what really passed. Pure; remembers the last few eras of this process.
"""

from dataclasses import dataclass, field

STEP = 2.0  # seconds; less is the clock being put right gently
KEPT = 8


@dataclass(slots=True)
class Eras:
    """Wall times are epoch seconds, `boot` is a clock that never jumps."""

    _eras: list[tuple[float, float]] = field(default_factory=list)  # (boot at its start, wall - boot), oldest first
    jumps: int = 0

    def note(self, wall: float, boot: float) -> None:
        """What both clocks say now. Cheap: called at every look at the clock."""
        offset = wall - boot
        if not self._eras:
            self._eras.append((float("-inf"), offset))
        elif abs(offset - self._eras[-1][1]) > STEP:
            self._eras.append((boot, offset))
            self.jumps += 1
            if len(self._eras) > KEPT:
                self._eras.pop(0)
                self._eras[0] = (float("-inf"), self._eras[0][1])

    @property
    def last_jump(self) -> float:
        """By how many seconds wall time jumped the last time; 0 if it never did."""
        return self._eras[-1][1] - self._eras[-2][1] if len(self._eras) > 1 else 0.0

    def age(self, moment: float, boot: float) -> float:
        """Seconds from wall time `moment` until now (`boot`), jumps not counted. Below zero: it lies ahead."""
        end = float("inf")
        for start, offset in reversed(self._eras):
            placed = moment - offset
            if start <= placed < end and placed <= boot + STEP:
                return boot - placed
            end = start
        return boot - (moment - self._eras[-1][1]) if self._eras else 0.0
