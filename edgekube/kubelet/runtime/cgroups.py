"""Control groups of pods: /kubepods[/burstable|/besteffort]/pod<uid>, on v1 in every controller, on v2 in the one tree.

    kubepods                      what the node can give to pods
      pod<uid>                    Guaranteed
      burstable/pod<uid>          shares = what the Burstable pods of the node ask for
      besteffort/pod<uid>         shares = 2

Containers' own groups below pod<uid> are podman's work. Everything is idempotent: a folder that is there is kept, one that is gone is gone.
Figures as upstream's kubelet: shares = milli * 1024 / 1000 (2..262144), quota = milli * period / 1000 (at least 1000), period 100 ms.
"""

import contextlib
import errno
import math
import os
import signal
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

PERIOD = 100_000
MIN_SHARES, MAX_SHARES, MIN_QUOTA = 2, 262_144, 1_000
_V1 = (
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "pids",
    "blkio",
    "devices",
    "freezer",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "rdma",
    "misc",
)
_HELPERS = frozenset(("pause", "conmon"))  # groups below pod<uid> that are no container's
_WANTED = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc")


@dataclass(frozen=True, slots=True)
class Limits:
    """0: not limited, left as it is."""

    shares: int = 0
    quota: int = 0
    memory: int = 0
    pids: int = 0


def shares_of(milli: int) -> int:
    """cpu.shares for a request of `milli` thousandths of a core."""
    return MIN_SHARES if milli <= 0 else max(MIN_SHARES, min(MAX_SHARES, milli * 1024 // 1000))


def quota_of(milli: int, period: int = PERIOD) -> int:
    """cpu.cfs_quota_us for a limit of `milli`; 0 for none."""
    return 0 if milli <= 0 else max(MIN_QUOTA, milli * period // 1000)


def weight_of(shares: int) -> int:
    """cpu.weight for cpu.shares: 1024 shares, one core, are v2's default of 100."""
    if shares <= 2:
        return 1
    if shares >= MAX_SHARES:
        return 10_000
    exponent = math.log2(shares)
    return math.ceil(10 ** (((exponent**2 + 125 * exponent) / 612.0) - 7.0 / 34.0))


def pod_limits(
    requests_milli: int, limits_milli: int, limits_memory: int, *, every_cpu_limited: bool, every_memory_limited: bool
) -> Limits:
    """A pod's own limits: they hold only where every container has one."""
    return Limits(
        shares=shares_of(requests_milli),
        quota=quota_of(limits_milli) if every_cpu_limited else 0,
        memory=limits_memory if every_memory_limited else 0,
    )


class Hierarchy:
    """How this host mounts its cgroups, looked up once."""

    def __init__(self, base: Path = Path("/sys/fs/cgroup"), *, service: str = "edgekube") -> None:
        self.base = base
        self.v2 = (base / "cgroup.controllers").exists()
        self.unified = base / "unified"
        self.controllers = self._controllers()
        self.hybrid = not self.v2 and (self.unified / "cgroup.procs").exists()
        self._service = service

    def _controllers(self) -> Sequence[str]:
        if self.v2:
            found = (self.base / "cgroup.controllers").read_text().split()
            return tuple(name for name in _WANTED if name in found)
        return tuple(name for name in _V1 if (self.base / name / "cgroup.procs").exists())

    def has(self, controller: str) -> bool:
        return controller in self.controllers

    def swap(self) -> bool:
        """Whether swap can be limited too."""
        if self.v2:
            return any(self.base.glob("*/memory.swap.max"))
        return (self.base / "memory/memory.memsw.limit_in_bytes").exists()

    def trees(self) -> Iterable[Path]:
        """The roots below which a group's folders lie."""
        if self.v2:
            return (self.base,)
        extra = tuple(path for path in (self.base / "systemd", self.unified) if (path / "cgroup.procs").exists())
        return tuple(dict.fromkeys((self.base / name).resolve() for name in self.controllers)) + extra

    def file(self, controller: str, group: str, name: str) -> Path:
        """Path of one control file of `group`."""
        return (self.base if self.v2 else self.base / controller) / group.lstrip("/") / name

    def group_of(self, pid: int) -> str:
        """The group of a process (on v1: in the memory tree, else the first)."""
        with contextlib.suppress(OSError):
            groups = {}
            for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
                _, names, path = line.split(":", 2)
                groups.update(dict.fromkeys(names.split(","), path))
            return groups.get("", "") if self.v2 else groups.get("memory") or groups.get("pids") or groups.get("cpu", "")
        return ""

    def place_service(self, pid: int) -> None:
        """Move a helper process out of our own group, so that stopping our systemd unit never takes it along."""
        tree = self.base if self.v2 else self.base / "systemd"
        with contextlib.suppress(OSError):
            if (tree / "cgroup.procs").exists():
                group = tree / self._service
                group.mkdir(exist_ok=True)
                (group / "cgroup.procs").write_text(str(pid))

    def kill_service(self) -> None:
        """SIGKILL what `place_service` put aside, and what it has started."""
        self.kill(self._service)

    def remove_service(self) -> None:
        """Remove the group of `place_service`, unless another node's service is in it. Blocks while ours is still dying."""
        group = (self.base if self.v2 else self.base / "systemd") / self._service
        for _ in range(50):
            if _remove_tree(group):
                return
            time.sleep(0.01)

    def ensure(self, group: str) -> None:
        """Make `group` and hand the controllers down to it."""
        parts = [part for part in group.split("/") if part]
        if not self.v2:
            for name in self.controllers:
                self._ensure_v1(name, parts)
            return
        path = self.base
        for part in parts:
            self._delegate(path)
            path = path / part
            path.mkdir(exist_ok=True)
        self._delegate(path)

    def _ensure_v1(self, controller: str, parts: Sequence[str]) -> None:
        path = self.base / controller
        for part in parts:
            child = path / part
            child.mkdir(exist_ok=True)
            if controller == "cpuset":  # a new cpuset is empty and takes no process before it has both
                for name in ("cpuset.cpus", "cpuset.mems"):
                    with contextlib.suppress(OSError):
                        if not (child / name).read_text().strip():
                            (child / name).write_text((path / name).read_text())
            path = child

    def _delegate(self, path: Path) -> None:
        """Enable all controllers for the children of `path`, one by one: a host may lack some."""
        have = (path / "cgroup.subtree_control").read_text().split()
        for name in self.controllers:
            if name in have:
                continue
            try:
                (path / "cgroup.subtree_control").write_text(f"+{name}")
            except OSError as error:
                if error.errno == errno.EBUSY and path == self.base:  # inside a container the root is no real root: clear it first
                    self._clear_root()
                    with contextlib.suppress(OSError):
                        (path / "cgroup.subtree_control").write_text(f"+{name}")

    def _clear_root(self) -> None:
        shelter = self.base / "init"
        shelter.mkdir(exist_ok=True)
        for pid in (self.base / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (shelter / "cgroup.procs").write_text(pid)

    def apply(self, group: str, limits: Limits) -> None:
        """Write what is set. Raises OSError when the kernel refuses (a limit below usage, say)."""
        if limits.shares and self.has("cpu"):
            name, value = ("cpu.weight", weight_of(limits.shares)) if self.v2 else ("cpu.shares", limits.shares)
            self.file("cpu", group, name).write_text(str(value))
        if self.has("cpu"):
            if self.v2:
                self.file("cpu", group, "cpu.max").write_text(f"{limits.quota or 'max'} {PERIOD}")
            else:
                self.file("cpu", group, "cpu.cfs_period_us").write_text(str(PERIOD))
                self.file("cpu", group, "cpu.cfs_quota_us").write_text(str(limits.quota or -1))
        if self.has("memory"):
            name = "memory.max" if self.v2 else "memory.limit_in_bytes"
            self.file("memory", group, name).write_text(str(limits.memory or ("max" if self.v2 else -1)))
        if limits.pids and self.has("pids"):
            self.file("pids", group, "pids.max").write_text(str(limits.pids))

    def processes(self, group: str, *, without: Collection[str] = ()) -> set[int]:
        """Every process in `group` and below, but not in the groups that are called `without`."""
        found: set[int] = set()
        for tree in self.trees():
            for file in (tree / group.lstrip("/")).rglob("cgroup.procs"):
                if file.parent.name in without:
                    continue
                with contextlib.suppress(OSError):
                    found.update(int(line) for line in file.read_text().split())
        return found

    def kill(self, group: str) -> None:
        """SIGKILL everything in `group`."""
        with contextlib.suppress(OSError):
            (self.base / group.lstrip("/") / "cgroup.kill").write_text("1")
            return
        for pid in self.processes(group):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def remove(self, group: str, *, patience: float = 2.0) -> bool:
        """Remove `group` with everything below it; what still runs in it is killed. True once all is gone. Blocks: use a thread."""
        deadline = time.monotonic() + patience
        while True:
            left = [tree for tree in self.trees() if not _remove_tree(tree / group.lstrip("/"))]
            if not left:
                return True
            if time.monotonic() > deadline:
                return False
            self.kill(group)
            time.sleep(0.01)


def _remove_tree(path: Path) -> bool:
    if not path.exists():
        return True
    for folder, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return not path.exists()


class PodGroups:
    """The groups of this node's pods below `root` (one root per node, so that several nodes share a machine)."""

    def __init__(self, hierarchy: Hierarchy, root: str = "kubepods") -> None:
        self.hierarchy, self.root = hierarchy, root

    def path(self, uid: str, qos: str) -> str:
        """`qos` is the pod's class: Guaranteed, Burstable or BestEffort."""
        parent = {"Burstable": "/burstable", "BestEffort": "/besteffort"}.get(qos, "")
        return f"/{self.root}{parent}/pod{uid}"

    def ensure_root(self, limits: Limits) -> None:
        """The tree itself with what the node can give, and its two lower classes."""
        self.hierarchy.ensure(f"/{self.root}")
        self.hierarchy.apply(f"/{self.root}", limits)
        for child in ("burstable", "besteffort"):
            self.hierarchy.ensure(f"/{self.root}/{child}")
        self.share_out(0)

    def share_out(self, burstable_milli: int) -> None:
        """CPU shares of the classes, from what all Burstable pods of the node request together."""
        self.hierarchy.apply(f"/{self.root}/burstable", Limits(shares=shares_of(burstable_milli)))
        self.hierarchy.apply(f"/{self.root}/besteffort", Limits(shares=MIN_SHARES))

    def ensure_pod(self, uid: str, qos: str, limits: Limits) -> str:
        """Make the pod's group and set its limits; its path, the `cgroup_parent` of its containers."""
        group = self.path(uid, qos)
        self.hierarchy.ensure(group)
        self.hierarchy.apply(group, limits)
        return group

    def pods(self) -> dict[str, str]:
        """uid -> group of every pod that has one, also of pods nobody knows any more."""
        found: dict[str, str] = {}
        for tree in self.hierarchy.trees():
            for parent in (f"{self.root}", f"{self.root}/burstable", f"{self.root}/besteffort"):
                for path in (tree / parent).glob("pod*"):
                    found[path.name.removeprefix("pod")] = f"/{parent}/{path.name}"
        return found

    def workload(self, uids: Collection[str] | None = None) -> set[int]:
        """Processes of containers, of these pods or all: not those that hold a pod's namespaces or watch its containers."""
        if uids is None:
            return self.hierarchy.processes(f"/{self.root}", without=_HELPERS)
        found = (self.hierarchy.processes(group, without=_HELPERS) for uid, group in self.pods().items() if uid in uids)
        return set().union(*found)

    def folders(self, uid: str) -> Sequence[Path]:
        """Where a pod's group is or will be, whatever its class, in one tree: enough to find its processes."""
        tree = next(iter(self.hierarchy.trees()))
        return [tree / self.root / parent / f"pod{uid}" for parent in ("", "burstable", "besteffort")]

    def kill_workload(self, uid: str) -> None:
        """SIGKILL every process of the pod's containers; what holds and watches them stays. Blocks for a moment."""
        group = self.pods().get(uid)
        for _ in range(20):
            left = set() if group is None else self.hierarchy.processes(group, without=_HELPERS)
            if not left:
                return
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def remove_pod(self, uid: str) -> bool:
        """Idempotent; True once it is gone. Blocks: call it in a thread."""
        group = self.pods().get(uid)
        return group is None or self.hierarchy.remove(group)

    def remove_all(self) -> bool:
        """The whole tree (uninstall)."""
        return self.hierarchy.remove(f"/{self.root}", patience=10.0)
