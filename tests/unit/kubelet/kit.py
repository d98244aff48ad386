"""Builders for tables: pods as dicts, containers as the runtime shows them."""

from datetime import UTC, datetime
from pathlib import Path

from edgekube.kubelet.podspec import container_hash
from edgekube.kubelet.runtime.protocol import ContainerInfo, ImageInfo, PodRef

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
REF = PodRef("u1", "default", "web")


def spec(name="main", **fields):
    return {"name": name, "image": "busybox:test", **fields}


def pod(*containers, init=(), status=None, deleting=False, labels=None, annotations=None, **fields):
    metadata = {"name": "web", "namespace": "default", "uid": "u1", "generation": 1}
    if labels:
        metadata["labels"] = labels
    if annotations:
        metadata["annotations"] = annotations
    if deleting:
        metadata |= {"deletionTimestamp": "2026-01-01T12:00:00Z", "deletionGracePeriodSeconds": 30}
    made = {"metadata": metadata, "spec": {"containers": list(containers) or [spec()], "restartPolicy": "Always", **fields}}
    if init:
        made["spec"]["initContainers"] = list(init)
    if status is not None:
        made["status"] = status
    return made


def info(name="main", state="running", *, attempt=0, code=0, oom=False, message="", of=None):
    """`of` is the container's spec, for its hash."""
    return ContainerInfo(
        id=f"{name}-{attempt}", pod=REF, name=name, attempt=attempt, state=state, pid=1, image="docker.io/library/busybox:test",
        image_id="sha256:1", hash=container_hash(of or spec(name)), created_at=NOW,
        started_at=None if state == "created" or message else NOW, finished_at=NOW if state == "exited" else None,
        exit_code=code, oom_killed=oom, message=message, log_path=Path("/none"), labels={},
    )  # fmt: skip


def image(user=""):
    return ImageInfo("sha256:1", ("docker.io/library/busybox:test",), (), 1, user, (), (), (), "", "", ())
