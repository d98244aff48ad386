"""What we know of our containers, in memory: so that asking costs nothing and podman's list is only a safety net.

Beside podman's own facts it keeps how a container ended where podman does not know (OOM kill, failed start, a conmon that died), in
run-dir/endings/<id>.json, so that a restarted edgekube still knows.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from edgekube.kubelet.runtime.info import Ending
from edgekube.kubelet.runtime.protocol import ContainerInfo


@dataclass(slots=True)
class Entry:
    """One container. `labels` are podman's, ours included."""

    info: ContainerInfo
    labels: Mapping[str, str]
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    bundle: Path | None = None
    program: str = ""


class Mirror:
    """id -> Entry."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.entries: dict[str, Entry] = {}
        self.removed: set[str] = set()  # since the last list began

    def put(self, info: ContainerInfo, labels: Mapping[str, str]) -> Entry:
        """Add or renew."""
        entry = self.entries.get(info.id)
        if entry is None:
            entry = self.entries[info.id] = Entry(info, labels)
        entry.info = info
        if info.state == "exited":
            entry.ended.set()
        return entry

    def of_pod(self, uid: str) -> list[ContainerInfo]:
        return [entry.info for entry in self.entries.values() if not uid or entry.info.pod.uid == uid]

    def end(self, container_id: str, ending: Ending, *, keep: bool) -> ContainerInfo | None:
        """The container is over. `keep`: podman would tell it otherwise after a restart of edgekube."""
        if keep:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / f"{container_id}.json").write_text(json.dumps(asdict(ending)))
        entry = self.entries.get(container_id)
        if entry is None:
            return None
        entry.info = replace(
            entry.info,
            state="exited",
            pid=0,
            exit_code=ending.code,
            finished_at=datetime.fromisoformat(ending.at).astimezone(UTC),
            oom_killed=ending.oom,
            message=ending.message,
        )
        entry.ended.set()
        return entry.info

    def drop(self, container_id: str) -> None:
        self.entries.pop(container_id, None)
        self.removed.add(container_id)
        (self._folder / f"{container_id}.json").unlink(missing_ok=True)

    def ending(self, container_id: str) -> Ending | None:
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Ending(**json.loads((self._folder / f"{container_id}.json").read_bytes()))
        return None

    def sweep(self) -> None:
        """Forget endings of containers that are no more."""
        if self._folder.exists():
            for path in self._folder.glob("*.json"):
                if path.stem not in self.entries:
                    path.unlink(missing_ok=True)
