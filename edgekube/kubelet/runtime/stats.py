"""Usage of a cgroup, read from its files. `working set` is usage without the file pages that could go at once, as upstream counts it."""

from collections.abc import Mapping
from pathlib import Path

from edgekube.kubelet.runtime.cgroups import Hierarchy
from edgekube.kubelet.runtime.protocol import ContainerStats


def read_stats(hierarchy: Hierarchy, group: str) -> ContainerStats | None:
    """None if the group is gone. What a missing controller would tell is 0. A few small reads, well below a millisecond."""
    if not group.strip("/"):
        return None
    if hierarchy.v2:
        base = hierarchy.base / group.lstrip("/")
        if not base.is_dir():
            return None
        stat = _table(base / "memory.stat")
        usage, inactive, rss = _number(base / "memory.current"), stat.get("inactive_file", 0), stat.get("anon", 0)
        cpu = _table(base / "cpu.stat").get("usage_usec", 0) * 1000
        pids = _number(base / "pids.current")
    else:
        if not any((tree / group.lstrip("/")).is_dir() for tree in hierarchy.trees()):
            return None
        stat = _table(hierarchy.file("memory", group, "memory.stat"))
        usage = _number(hierarchy.file("memory", group, "memory.usage_in_bytes"))
        inactive, rss = stat.get("total_inactive_file", 0), stat.get("total_rss", 0)
        cpu = _number(hierarchy.file("cpuacct", group, "cpuacct.usage"))
        pids = _number(hierarchy.file("pids", group, "pids.current"))
    return ContainerStats(cpu_nanoseconds=cpu, memory_usage=usage, memory_working_set=max(0, usage - inactive), memory_rss=rss, pids=pids)


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


def _table(file: Path) -> Mapping[str, int]:
    try:
        pairs = (line.split() for line in file.read_text().splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
    except OSError:
        return {}
