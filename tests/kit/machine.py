"""A machine that is a bundle of namespaces: its own network, processes, mounts, host name, /run, /etc/machine-id and /etc/hosts.

    with machine("pi") as m:
        m.run("ip", "addr"); m.power_off(); m.boot()

Everything in it hangs on one init process: killing that is pulling the plug, which ends all processes, links, rules and mounts at once.
What lies below `base` stays, as a disk does. Cgroups are the host's own, so the folders named below `kubepods-*` outlive a power cut, empty.
"""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
_INIT = """
set -e
hostname "$1"
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
for name in hostname hosts machine-id resolv.conf; do mount --bind "$2/etc/$name" "/etc/$name"; done
mkdir /run/lock
ip link set lo up
echo up >"$2/up"
trap : TERM INT HUP
while :; do sleep 1000000 & wait; done
"""


class CommandFailed(AssertionError):
    """A command that had to succeed did not; the message has all it said."""


class Machine:
    """See the module. `on_boot` is called after each boot: it plugs the cables in."""

    def __init__(self, name: str, base: Path, *, hostname: str = "", machine_id: str = "") -> None:
        self.name, self.base, self.hostname = name, base, hostname or name
        self.machine_id = machine_id or hashlib.sha256(str(base).encode()).hexdigest()[:32]
        self.pid = 0
        self.on_boot: list[Callable[[], None]] = []
        self._init: subprocess.Popen[bytes] | None = None
        etc = base / "etc"
        etc.mkdir(parents=True)
        (etc / "hostname").write_text(f"{self.hostname}\n")
        (etc / "machine-id").write_text(f"{self.machine_id}\n")
        (etc / "resolv.conf").write_text("")
        self.name_hosts({})

    def name_hosts(self, names: Mapping[str, str]) -> None:
        """What /etc/hosts says besides localhost: name -> address."""
        lines = [f"127.0.0.1 localhost {self.hostname}", *(f"{address} {name}" for name, address in names.items())]
        (self.base / "etc" / "hosts").write_text("\n".join(lines) + "\n")  # in place: it is bound into the machine

    # power

    def boot(self) -> None:
        """Start it; returns when its namespaces stand and its cables are in."""
        up = self.base / "up"
        up.unlink(missing_ok=True)
        namespaces = ("--net", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--propagation=slave", "--kill-child")
        argv = ["unshare", *namespaces, "sh", "-c", _INIT, "init", self.hostname, str(self.base)]
        with (self.base / "init.log").open("ab") as out:
            self._init = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        _poll(up.exists, what=f"machine {self.name} boots: {(self.base / 'init.log').read_text()}")
        self.pid = child_of(self._init.pid)
        for plug in self.on_boot:
            plug()

    def power_off(self) -> None:
        """Pull the plug: nobody gets to say goodbye. Returns when all of it is gone."""
        if self._init is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._init.wait(30)
        self._init, self.pid = None, 0

    def reboot(self) -> None:
        self.power_off()
        self.boot()

    # what runs in it

    def enter(self, *argv: str) -> list[str]:
        """What to run outside for `argv` to run inside, in the checkout's folder."""
        return ["nsenter", "-t", str(self.pid), "-m", "-u", "-n", "-p", "--", "env", "-C", str(ROOT), *argv]

    def run(self, *argv: str, stdin: str | None = None, timeout: float = 60, check: bool = True) -> str:
        """stdout of a program in the machine. Raises CommandFailed."""
        done = subprocess.run(self.enter(*argv), input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode != 0:
            raise CommandFailed(f"{self.name}: {' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def sh(self, script: str, *, timeout: float = 60, check: bool = True) -> str:
        return self.run("sh", "-c", script, timeout=timeout, check=check)

    def fetch(self, url: str, *, timeout: float = 5) -> str:
        """The body of a URL, asked for from here."""
        program = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1], timeout=float(sys.argv[2])).read().decode())"
        return self.run(sys.executable, "-c", program, url, str(timeout), timeout=timeout + 20).strip()

    def pings(self, address: str, *, count: int = 1, timeout: int = 1) -> int:
        """How many of `count` pings were answered."""
        said = self.sh(f"busybox ping -c {count} -i 0.05 -W {timeout} {address} 2>&1", timeout=count * (timeout + 1) + 10, check=False)
        found = re.search(r"(\d+) packets received", said)
        return int(found[1]) if found else 0

    def popen(self, *argv: str, log: Path, env: Mapping[str, str] | None = None) -> "Process":
        """A program that goes on; what it says is appended to `log`."""
        with log.open("ab") as out:
            outside = subprocess.Popen(
                self.enter(*argv), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=os.environ | dict(env or {})
            )
        return Process(outside)


class Process:
    """A program inside of a machine, signalled and waited for from outside."""

    def __init__(self, outside: subprocess.Popen[bytes]) -> None:
        self._outside = outside

    @property
    def pid(self) -> int:
        """As the host sees it."""
        return child_of(self._outside.pid)

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout: float = 60) -> int:
        """The exit code; negative for a signal."""
        return self._outside.wait(timeout)

    def poll(self) -> int | None:
        return self._outside.poll()


def child_of(pid: int) -> int:
    """The only child of a process, once it has one."""
    return int(_poll(lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[:1], what=f"a child of process {pid}")[0])


def _poll(look: Callable[[], object], *, what: str, seconds: float = 20.0) -> object:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.005)
    return found


@contextlib.contextmanager
def machine(name: str, *, base: Path | None = None, **options: str) -> Iterator[Machine]:
    """A booted machine; at the end it is off, and its disk is gone."""
    place = (base or Path("/tmp") / f"ekm-{uuid.uuid4().hex[:6]}") / name
    place.mkdir(parents=True, mode=0o700)
    found = Machine(name, place, **options)
    try:
        found.boot()
        yield found
    finally:
        found.power_off()
        if not os.environ.get("EDGEKUBE_KEEP"):
            shutil.rmtree(place if base else place.parent, ignore_errors=True)
