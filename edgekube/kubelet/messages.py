"""Termination messages: what a container wrote to its termination file, else, if it failed and asks for it, the end of its log.

Blocking: run in a thread.
"""

import os
from pathlib import Path

from edgekube.api.types import Obj
from edgekube.kubelet.runtime.protocol import ContainerInfo

FILE_LIMIT, LOG_LIMIT, LOG_LINES = 4096, 2048, 80


def termination_message(container: Obj, info: ContainerInfo, file: Path) -> str:
    """At most 4 KiB from the file, or 2 KiB / 80 lines from the log."""
    try:
        with file.open("rb") as opened:
            text = opened.read(FILE_LIMIT).decode("utf-8", "replace")
    except OSError:
        text = ""
    if text or container.get("terminationMessagePolicy") != "FallbackToLogsOnError" or info.exit_code == 0:
        return text
    return log_tail(info.log_path)


def log_tail(path: Path) -> str:
    """The last lines of a CRI log without their stamps."""
    try:
        with path.open("rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            opened.seek(max(0, size - 64 * 1024))
            data = opened.read()
    except OSError:
        return ""
    out: list[bytes] = []
    for line in data.split(b"\n")[-LOG_LINES * 2 :]:
        parts = line.split(b" ", 3)
        if len(parts) == 4:
            out.append(parts[3] + (b"\n" if parts[2] == b"F" else b""))
    whole = b"".join(out).splitlines(keepends=True)[-LOG_LINES:]
    return b"".join(whole)[-LOG_LIMIT:].decode("utf-8", "replace")
