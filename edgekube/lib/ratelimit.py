"""A token bucket, pure: `rate` a second on average, `burst` at once."""


class RateLimit:
    def __init__(self, *, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._since = float(burst), 0.0

    def allows(self, now: float) -> bool:
        """Count one more; whether there is room for it. `now` is monotonic."""
        self._left = min(self._burst, self._left + (now - self._since) * self._rate)
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
