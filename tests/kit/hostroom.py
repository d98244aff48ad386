"""A room in this machine that looks like a machine of its own to an installer: /etc, /usr/local, /var/log and /var/lib/edgekube are
layers that are thrown away, the network is empty, and /run/edgekube is private. No systemd. Control groups are the host's."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

_LAYERED = ("/etc", "/usr/local", "/var/log")
_OUR_LOGS = ("/var/log/edgekube", "/var/log/pods", "/var/log/containers")
_EMPTY = ("/var/lib/edgekube", "/run/edgekube", "/run/systemd")


class Room:
    """`run` works inside of it."""

    def __init__(self, pid: int, folder: Path) -> None:
        self.pid, self.folder = pid, folder

    def argv(self, *argv: str) -> list[str]:
        return ["nsenter", f"--target={self.pid}", "--mount", "--net", "--", *argv]

    def run(self, *argv: str, env: dict[str, str] | None = None, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """A program, as root."""
        return subprocess.run(
            self.argv(*argv), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, timeout=timeout, env=os.environ | (env or {})
        )

    def sh(self, line: str, **options: dict[str, str]) -> str:
        """A shell line that must succeed; what it prints."""
        done = self.run("sh", "-c", line, **options)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout

    def files(self) -> Sequence[str]:
        """Every file, folder and link that an installer may have to do with."""
        found = self.sh(f"find {' '.join((*_LAYERED, *_EMPTY))} | sort").splitlines()
        return [name for name in found if not name.startswith("/var/log/") or name.startswith(_OUR_LOGS)]  # others write logs meanwhile


@contextlib.contextmanager
def room(*more: str) -> Iterator[Room]:
    """`more`: further folders that are layers."""
    folder = Path(tempfile.mkdtemp(prefix="ekr", dir="/tmp"))
    lines = ["mount --make-rprivate /", f"mount -t tmpfs layers {folder}"]
    for number, path in enumerate((*_LAYERED, *more)):
        lines += [f"mkdir {folder}/{number} {folder}/{number}.work"]
        lines += [f"mount -t overlay overlay -o lowerdir={path},upperdir={folder}/{number},workdir={folder}/{number}.work {path}"]
    made = [path for path in _EMPTY if not os.path.isdir(path)]
    for path in made:
        os.makedirs(path)
    lines += [f"mount -t tmpfs empty {path}" for path in _EMPTY]
    lines += ["rm -rf /etc/edgekube", "ip link set lo up", "echo ready", "exec sleep infinity"]
    keeper = subprocess.Popen(["unshare", "-m", "-n", "sh", "-e", "-c", "\n".join(lines)], stdout=subprocess.PIPE, text=True)
    try:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == "ready\n"
        yield Room(keeper.pid, folder)
    finally:
        keeper.kill()
        keeper.wait()
        if keeper.stdout is not None:
            keeper.stdout.close()
        for path in made:
            with contextlib.suppress(OSError):
                os.rmdir(path)
        shutil.rmtree(folder, ignore_errors=True)
