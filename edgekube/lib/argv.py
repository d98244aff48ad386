"""Taking a secret out of this process's command line, which every user of the machine can read.

The kernel shows the bytes that lie where the arguments were put at the start (/proc/PID/cmdline); they are the process's own to change.
"""

import contextlib
import ctypes
from pathlib import Path

_START, _END = 45, 46  # arg_start and arg_end, of the fields behind the command's name (48 and 49 in proc_pid_stat(5))


def conceal(secret: str) -> None:
    """Overwrite it wherever the command line has it. Where that can not be done nothing happens."""
    text = secret.encode()
    if not text:
        return
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[_START]), int(fields[_END])
        if not 0 < start < end:
            return
        shown = ctypes.string_at(start, end - start)
        at = shown.find(text)
        while at >= 0:
            ctypes.memset(start + at, ord("x"), len(text))
            at = shown.find(text, at + len(text))
