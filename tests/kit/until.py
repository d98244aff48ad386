"""Wait for a condition in a coroutine; the surrounding timeout is the deadline."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], *, step: float = 0.01) -> None:
    """Look every `step` seconds until `condition()` is true."""
    while True:
        if condition():
            return
        await asyncio.sleep(step)
