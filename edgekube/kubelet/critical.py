"""Which pods of this node are critical, noted in <run-dir>/critical for the end of the machine, when nobody can be asked any more."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from edgekube.api.types import Obj
from edgekube.kubelet.eviction import is_critical

_NAME = "critical"


def note(run_dir: Path, pods: Sequence[Obj]) -> None:
    """Written only when it changes, and to a tmpfs: it holds for this boot."""
    text = "".join(sorted(f"{pod['metadata']['uid']}\n" for pod in pods if is_critical(pod)))
    with contextlib.suppress(OSError):  # then they end with the others
        file = run_dir / _NAME
        if (file.read_text() if file.exists() else "") != text:
            file.write_text(text)


def noted(run_dir: Path) -> frozenset[str]:
    """Uids of the critical pods."""
    with contextlib.suppress(OSError):
        return frozenset((run_dir / _NAME).read_text().split())
    return frozenset()
