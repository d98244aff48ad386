"""Several ways to a server at once: the first that gets through is taken, so that a dead address costs a quarter of a second.

Names are looked up anew at each attempt, and a name server that does not answer holds up only its own name.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence

from edgekube.agent.dial import Address, Dialed, DialFailed
from edgekube.lib.tasks import TaskScope

STAGGER = 0.25  # seconds that a way gets before the next one is tried beside it

Attempt = Callable[[], Awaitable[Dialed]]


class _Race:
    def __init__(self) -> None:
        self.won: Dialed | None = None
        self.failures: list[DialFailed] = []
        self.moved = asyncio.Event()

    async def run(self, attempt: Attempt) -> None:
        try:
            found = await attempt()
        except DialFailed as error:
            self.failures.append(error)
        else:
            if self.won is None:
                self.won = found
            else:
                found.transport.abort()
        self.moved.set()

    async def wait(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.moved.wait()
        except TimeoutError:
            return


async def race(attempts: Sequence[Attempt], *, stagger: float = STAGGER) -> Dialed:
    """The first that succeeds. Each starts `stagger` seconds after the one before, or as soon as one has failed; what loses is closed.
    Raises DialFailed with what every one said."""
    state, waiting = _Race(), list(attempts)
    try:
        async with TaskScope("dial") as scope:
            while state.won is None and (waiting or len(scope)):
                state.moved.clear()
                if waiting:
                    scope.spawn(state.run(waiting.pop(0)), name="attempt")
                await state.wait(stagger if waiting else None)
                await asyncio.sleep(0)  # a task that is done leaves the scope
    except BaseException:
        if state.won is not None:
            state.won.transport.abort()
        raise
    if state.won is not None:
        return state.won
    refused = next((each.refused for each in state.failures if each.refused), 0)
    raise DialFailed("; ".join(dict.fromkeys(map(str, state.failures))) or "no address of a server is known", refused=refused)


class Resolver:
    """Host names to addresses. One question per name at a time: one that hangs keeps a thread, not more."""

    def __init__(self) -> None:
        self._asking: dict[str, asyncio.Task[list[str]]] = {}
        self._scope = TaskScope("resolver")

    async def __call__(self, host: str, *, timeout: float) -> Sequence[str]:
        """Raises DialFailed."""
        if is_literal(host):
            return (host,)
        task = self._asking.get(host)
        if task is None:
            task = self._asking[host] = self._scope.spawn(self._ask(host), name=host)
        try:
            async with asyncio.timeout(timeout):
                found = await asyncio.shield(task)
        except TimeoutError:
            raise DialFailed(f"{host}: the name servers do not answer") from None
        if not found:
            raise DialFailed(f"{host}: no such host")
        return found

    async def _ask(self, host: str) -> list[str]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
            return unique(str(entry[4][0]) for entry in found)
        except OSError:
            return []
        finally:
            del self._asking[host]

    async def close(self) -> None:
        await self._scope.close()


def is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def in_order(addresses: Iterable[Address], first: Address | None) -> list[Address]:
    """What worked last first, then numbers, then names: those need a name server."""
    return sorted(dict.fromkeys(addresses), key=lambda each: (each != first, not is_literal(each.host)))
