"""Tell systemd how we are (sd_notify); nothing happens where systemd did not start us."""

import os
import socket


def notify(state: str) -> None:
    """Send e.g. `READY=1`, `STOPPING=1` or `STATUS=...` to the manager."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
        channel.send(state.encode())
