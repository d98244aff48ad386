"""Pods that fill their emptyDir volumes beyond `sizeLimit` are evicted; looked at with each beat of the node.

Only volumes that have a limit are walked; one in memory has its limit from its tmpfs. Upstream: eviction_manager.go emptyDirLimitEviction.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from edgekube.api import quantity
from edgekube.api.types import Obj
from edgekube.kubelet.worker import Failure

GRACE = 1.0


def limits(pod: Obj) -> Iterator[tuple[str, str]]:
    """Volume name and limit of what has to be watched."""
    for volume in pod["spec"].get("volumes") or ():
        source = volume.get("emptyDir") or {}
        if source.get("sizeLimit") and source.get("medium") != "Memory":
            yield volume["name"], source["sizeLimit"]


def exceeded(pod: Obj, pod_dir: Path) -> Failure | None:
    """What the pod is evicted for, if anything. Walks directories: run in a thread."""
    for name, limit in limits(pod):
        if used_bytes(pod_dir / "volumes" / "kubernetes.io~empty-dir" / name) > quantity.value(limit):
            return Failure("Evicted", f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". ', grace=GRACE)
    return None


def used_bytes(folder: Path) -> int:
    """What a folder takes on its file system; hard links count once. What vanishes meanwhile counts nothing."""
    total, seen = 0, set()
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.lstat(os.path.join(parent, name))
            except OSError:
                continue
            if found.st_nlink > 1:
                if (found.st_dev, found.st_ino) in seen:
                    continue
                seen.add((found.st_dev, found.st_ino))
            total += found.st_blocks * 512
    return total
