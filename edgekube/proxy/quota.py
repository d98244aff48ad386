"""How many descriptors relays may have together: what the process may open, less what everything else needs, and 8,192 at most."""

import resource
from dataclasses import dataclass, field

_MOST, _LEAST, _OTHERS = 8192, 64, 512


def _limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else max(_LEAST, min(_MOST, (soft - _OTHERS) // 2))


@dataclass(slots=True)
class Quota:
    """`refused` counts what there was no room for."""

    limit: int = field(default_factory=_limit)
    used: int = 0
    refused: int = 0

    def take(self, count: int) -> bool:
        """Whether there was room."""
        if self.used + count > self.limit:
            self.refused += 1
            return False
        self.used += count
        return True

    def give(self, count: int) -> None:
        self.used -= count
