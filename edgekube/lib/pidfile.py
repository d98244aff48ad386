"""One process per run directory: a locked file with the process id. The lock goes with the process, however it ends."""

import fcntl
import os
from pathlib import Path


class AlreadyRunning(Exception):
    """Another process holds the lock."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"already running as process {pid}")
        self.pid = pid


class PidFile:
    """Holds the lock while it lives. Raises AlreadyRunning."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise AlreadyRunning(_read(path)) from None
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"{os.getpid()}\n".encode())

    def close(self) -> None:
        """Let go; the file stays (removing it would race with the next holder)."""
        os.close(self._descriptor)


def running(path: Path) -> int:
    """Process id of the holder, 0 if nobody holds the lock (or who does can not be seen)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(path)
    else:
        return 0
    finally:
        os.close(descriptor)


def _read(path: Path) -> int:
    text = path.read_text().strip()
    return int(text) if text.isdigit() else 0
