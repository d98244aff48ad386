"""What podman says of a container, in our words (pure)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgekube.kubelet.runtime import spec as labels
from edgekube.kubelet.runtime.protocol import ContainerInfo, PodRef

_RUNNING = frozenset({"running", "paused", "stopping"})
_CREATED = frozenset({"created", "initialized", "configured", "unknown", "removing"})


@dataclass(frozen=True, slots=True)
class Ending:
    """How a container ended, kept by us in run-dir: podman knows neither OOM kills nor failed starts."""

    code: int
    at: str  # RFC 3339
    oom: bool = False
    message: str = ""


def ours(labelled: Mapping[str, str], instance: str) -> bool:
    return labels.UID in labelled and labelled.get(labels.INSTANCE) == instance


def from_list(entry: Mapping[str, Any], ending: Ending | None) -> ContainerInfo:
    """One entry of GET /containers/json."""
    return _info(
        identity=entry["Id"],
        labelled=entry.get("Labels") or {},
        state=str(entry.get("State", "")),
        pid=int(entry.get("Pid") or 0),
        image_id=str(entry.get("ImageID", "")),
        created=_moment(entry.get("Created")),
        started=_moment(entry.get("StartedAt")),
        finished=_moment(entry.get("ExitedAt")),
        code=int(entry.get("ExitCode") or 0),
        ending=ending,
    )


def from_inspect(entry: Mapping[str, Any], ending: Ending | None) -> ContainerInfo:
    """GET /containers/{id}/json."""
    state = entry["State"]
    return _info(
        identity=entry["Id"],
        labelled=entry["Config"].get("Labels") or {},
        state=str(state["Status"]),
        pid=int(state.get("Pid") or 0),
        image_id=str(entry.get("Image", "")),
        created=_moment(entry.get("Created")),
        started=_moment(state.get("StartedAt")),
        finished=_moment(state.get("FinishedAt")),
        code=int(state.get("ExitCode") or 0),
        ending=ending,
    )


def is_over(state: str) -> bool:
    """Podman's word for a container whose exit code is known."""
    return state in ("stopped", "exited")


def _info(
    *,
    identity: str,
    labelled: Mapping[str, str],
    state: str,
    pid: int,
    image_id: str,
    created: datetime | None,
    started: datetime | None,
    finished: datetime | None,
    code: int,
    ending: Ending | None,
) -> ContainerInfo:
    ours = "running" if state in _RUNNING else "created" if state in _CREATED else "exited"
    if ending is not None:
        ours, code, finished = "exited", ending.code, datetime.fromisoformat(ending.at)
    over = ours == "exited"
    return ContainerInfo(
        id=identity,
        pod=PodRef(labelled.get(labels.UID, ""), labelled.get(labels.NAMESPACE, ""), labelled.get(labels.POD, "")),
        name=labelled.get(labels.NAME, ""),
        attempt=int(labelled.get(labels.ATTEMPT) or 0),
        state=ours,
        pid=0 if over else pid,
        image=labelled.get(labels.IMAGE, ""),
        image_id=image_id if image_id.startswith("sha256:") else f"sha256:{image_id}",
        hash=labelled.get(labels.HASH, ""),
        created_at=created or datetime.fromtimestamp(0, UTC),
        started_at=started,
        finished_at=finished if over else None,
        exit_code=code if over else 0,
        oom_killed=bool(ending and ending.oom),
        message=ending.message if ending else "",
        log_path=Path(labelled.get(labels.LOG_PATH, "")),
        labels=labels.strip_labels(labelled),
    )


def _moment(value: object) -> datetime | None:
    """Unix seconds or RFC 3339 with nanoseconds; podman's zero times (year 1, a negative or tiny number) are None."""
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC) if value > 0 else None
    if not isinstance(value, str) or value.startswith("0001-"):
        return None
    text = re.sub(r"(\.\d{6})\d+", r"\1", value)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.timestamp() > 0 else None


def start_message(text: str, program: str = "") -> str:
    """podman's start error in the words people search for: those of runc. `program` is what was to be started."""
    text = text.removesuffix(": OCI runtime attempted to invoke a command that was not found").removesuffix(": OCI permission denied")
    text = text.removesuffix(": OCI runtime error")
    if found := re.search(r"executable file [`'\"]([^`'\"]+)[`'\"] not found in \$PATH", text):
        program = found[1]
        why = f"stat {program}: no such file or directory" if "/" in program else "executable file not found in $PATH"
        return f'exec: "{program}": {why}'
    if program and "open executable: Permission denied" in text:
        return f'exec: "{program}": permission denied'
    if (at := text.find('exec: "')) >= 0:
        return text[at:]
    return re.sub(r"^(runc: |crun: )+", "", text)
