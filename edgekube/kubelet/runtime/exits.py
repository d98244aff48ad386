"""Noticing that containers end: a pidfd each on the event loop (a millisecond, no polling), and whether the kernel's OOM killer did it.

OOM: podman 4.3 says false even when it is true, so the cgroup is asked. The counter `oom_kill` (v1 memory.oom_control, v2 memory.events) is
read when the pidfd fires, normally before podman's clean-up has removed the group. For the case that it was faster: on v1 an eventfd per
container, which nobody polls: it holds 1 for the removal itself and more if there was an OOM; on v2 the pod's own counter, which survives.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgekube.kubelet.runtime import pidfd
from edgekube.kubelet.runtime.cgroups import Hierarchy


@dataclass(slots=True)
class Watched:
    """A running container."""

    pid: int
    descriptor: int
    group: str
    event: int | None  # v1: eventfd armed on memory.oom_control
    pod_kills: int  # v2: the pod's counter when this container began


class Exits:
    """`on_end(container_id, pid_was_oom_killed)` is called on the loop once per watched container."""

    def __init__(self, hierarchy: Hierarchy, on_end: Callable[[str, bool, bool], None]) -> None:
        self._hierarchy, self._on_end = hierarchy, on_end
        self._watched: dict[str, Watched] = {}

    def __contains__(self, container_id: str) -> bool:
        return container_id in self._watched

    def watch(self, container_id: str, pid: int) -> bool:
        """False if the process has ended already."""
        if container_id in self._watched:
            return True
        descriptor = pidfd.open_pidfd(pid)
        if descriptor is None:
            return False
        group = self._hierarchy.group_of(pid)
        self._kill_whole(group)
        self._watched[container_id] = Watched(pid, descriptor, group, self._arm(group), self._kills(os.path.dirname(group)))
        asyncio.get_running_loop().add_reader(descriptor, self._fire, container_id)
        return True

    def group(self, container_id: str) -> str:
        """The cgroup of a running container, "" if it does not run."""
        one = self._watched.get(container_id)
        return one.group if one else ""

    def pid(self, container_id: str) -> int:
        one = self._watched.get(container_id)
        return one.pid if one else 0

    def signal(self, container_id: str, number: int) -> bool:
        """To the container's first process; False if it does not run."""
        one = self._watched.get(container_id)
        return one is not None and pidfd.send(one.descriptor, number)

    def close(self) -> None:
        for container_id in list(self._watched):
            self._drop(container_id)

    def _fire(self, container_id: str) -> None:
        one = self._watched[container_id]
        certain, maybe = self._oom(one)
        self._drop(container_id)
        self._on_end(container_id, certain, maybe)

    def _drop(self, container_id: str) -> None:
        one = self._watched.pop(container_id)
        asyncio.get_running_loop().remove_reader(one.descriptor)
        os.close(one.descriptor)
        if one.event is not None:
            os.close(one.event)

    def _file(self, group: str) -> Path:
        return self._hierarchy.file("memory", group, "memory.events" if self._hierarchy.v2 else "memory.oom_control")

    def _kill_whole(self, group: str) -> None:
        """v2: when the kernel must kill one process of a container it kills them all, as upstream's kubelet asks for."""
        if self._hierarchy.v2 and group.strip("/"):
            with contextlib.suppress(OSError):
                self._hierarchy.file("memory", group, "memory.oom.group").write_text("1")

    def _kills(self, group: str) -> int:
        return _counter(self._file(group)) or 0 if group.strip("/") else 0

    def _arm(self, group: str) -> int | None:
        if self._hierarchy.v2 or not group.strip("/"):
            return None
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            with self._file(group).open("rb") as control:
                self._hierarchy.file("memory", group, "cgroup.event_control").write_text(f"{event} {control.fileno()}")
        except OSError:
            os.close(event)
            return None
        return event

    def _oom(self, one: Watched) -> tuple[bool, bool]:
        """(surely, only if the exit code is that of SIGKILL)."""
        if not one.group.strip("/"):
            return False, False
        kills = _counter(self._file(one.group))
        if kills is not None:
            return kills > 0, False
        if one.event is not None:
            with contextlib.suppress(BlockingIOError):
                return False, os.eventfd_read(one.event) > 1
        return False, self._hierarchy.v2 and self._kills(os.path.dirname(one.group)) > one.pod_kills


def _counter(file: Path) -> int | None:
    try:
        for line in file.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except OSError:
        return None
    return None
