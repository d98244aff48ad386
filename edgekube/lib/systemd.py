"""Tell systemd how we are (sd_notify); nothing happens where systemd did not start us."""

import asyncio
import os
import socket
from collections.abc import Mapping


def notify(state: str) -> None:
    """Send e.g. `READY=1`, `STOPPING=1` or `STATUS=...` to the manager."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
        channel.send(state.encode())


def watchdog_seconds(environ: Mapping[str, str], pid: int) -> float:
    """How long systemd waits for a sign of life of this process; 0: it does not ask for any."""
    text, asked = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not text.isdigit() or (asked and asked != str(pid)):
        return 0.0
    return int(text) / 1e6


def feed_watchdog(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    """A sign of life from the loop itself, thrice in the time: a loop that is stuck gives none. Nothing for 0."""
    if seconds > 0:
        notify("WATCHDOG=1")
        loop.call_later(seconds / 3, feed_watchdog, loop, seconds)
