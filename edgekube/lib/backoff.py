"""Exponential back-off per key, pure: no clock, no sleep. `delay` answers how long to wait before the next try."""

import random
from collections.abc import Hashable


class Backoff:
    """First delay `base` seconds, doubled at each failure up to `cap`, spread by `jitter` (a fraction)."""

    def __init__(self, *, base: float, cap: float, jitter: float = 0.0, factor: float = 2.0) -> None:
        self._base, self._cap, self._jitter, self._factor = base, cap, jitter, factor
        self._failures: dict[Hashable, int] = {}

    def delay(self, key: Hashable) -> float:
        """Count one more failure of `key` and return the seconds to wait."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(self._cap, self._base * self._factor ** min(failures, 64))
        return delay * (1 + self._jitter * random.random())

    def failures(self, key: Hashable) -> int:
        return self._failures.get(key, 0)

    def forget(self, key: Hashable) -> None:
        """`key` succeeded: its next failure starts at `base` again."""
        self._failures.pop(key, None)
