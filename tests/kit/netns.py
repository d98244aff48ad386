"""Network namespaces for tests: made, entered and removed with everything in them."""

import contextlib
import ctypes
import os
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

NEWNET = 0x40000000


def sh(command: str, *, check: bool = True) -> str:
    """Run a shell line; its stdout."""
    done = subprocess.run(["sh", "-c", command], check=False, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise RuntimeError(f"{command}: {done.stderr.strip()}")
    return done.stdout


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """A fresh network namespace (loopback up); yields its path."""
    name = f"ekt-{uuid.uuid4().hex[:8]}"
    sh(f"ip netns add {name} && ip -n {name} link set lo up")
    try:
        yield f"/run/netns/{name}"
    finally:
        sh(f"ip netns del {name}", check=False)


def call_inside(netns: str, work: Callable[[], Any]) -> Any:
    """Run `work` in a thread of its own that has entered `netns`."""
    box: dict[str, Any] = {}

    def run() -> None:
        try:
            with open(netns, "rb") as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            box["result"] = work()
        except BaseException as error:
            box["error"] = error

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if "error" in box:
        raise box["error"]
    return box.get("result")


def inside(netns: str, command: str) -> str:
    """A shell line in the namespace (without remounting /sys, as `ip netns exec` would)."""
    return sh(f"nsenter --net={netns} sh -c '{command}'")


def enter_command(netns: str) -> list[str]:
    """What to put before an argv to run it in the namespace."""
    return ["nsenter", f"--net={netns}", "--"] if netns else []


def fresh_dir(base: str = "/tmp") -> str:
    path = f"{base}/ekt-{uuid.uuid4().hex[:8]}"
    os.makedirs(path)
    return path
