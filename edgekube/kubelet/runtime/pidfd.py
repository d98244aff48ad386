"""Processes by pidfd: noticed at once when they end, never confused with a later process of the same number."""

import asyncio
import contextlib
import os
import signal


def open_pidfd(pid: int) -> int | None:
    """A descriptor of the process, None if there is none."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


async def readable(descriptor: int) -> None:
    """Wait until the process behind the pidfd has ended."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def fire() -> None:
        if not done.done():
            done.set_result(None)

    loop.add_reader(descriptor, fire)
    try:
        await done
    finally:
        loop.remove_reader(descriptor)


async def ended(pid: int) -> None:
    """Wait until process `pid` has ended; if it is our child, collect it."""
    descriptor = open_pidfd(pid)
    if descriptor is None:
        return
    try:
        await readable(descriptor)
    finally:
        os.close(descriptor)
        reap(pid)


def reap(pid: int) -> None:
    """Collect an ended child; no error if it was not ours."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def send(descriptor: int, number: int) -> bool:
    """Signal the process; False if it has ended."""
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    return True
