"""Reading a pod: the few questions every part of the kubelet asks of the plain dict. Pure."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from edgekube.api.types import Key, Obj
from edgekube.kubelet.runtime.protocol import PodRef
from edgekube.lib.clock import parse_rfc3339

GRACE_LABEL = "io.kubernetes.pod.terminationGracePeriod"  # on containers: how long they get when nobody knows their pod any more
CONFIG_SOURCE = "kubernetes.io/config.source"


def ref(pod: Obj) -> PodRef:
    metadata = pod["metadata"]
    return PodRef(metadata["uid"], metadata["namespace"], metadata["name"])


def key(pod: Obj) -> Key:
    return Key(pod["metadata"]["namespace"], pod["metadata"]["name"])


def described(pod: Obj) -> str:
    """As upstream writes a pod in messages: name_namespace(uid)."""
    metadata = pod["metadata"]
    return f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"


def containers(pod: Obj) -> Sequence[Obj]:
    found: Sequence[Obj] = pod["spec"].get("containers") or ()
    return found


def init_containers(pod: Obj) -> Sequence[Obj]:
    found: Sequence[Obj] = pod["spec"].get("initContainers") or ()
    return found


def ephemeral_containers(pod: Obj) -> Sequence[Obj]:
    found: Sequence[Obj] = pod["spec"].get("ephemeralContainers") or ()
    return found


def every_container(pod: Obj) -> Iterator[Obj]:
    """Init, main and ephemeral ones."""
    yield from init_containers(pod)
    yield from containers(pod)
    yield from ephemeral_containers(pod)


def images(pod: Obj) -> Iterator[str]:
    """As the pod names them."""
    return (c["image"] for c in every_container(pod) if c.get("image"))


def waits_for_image(status: Mapping[str, Any]) -> bool:
    """Whether a container of the pod can not start for want of its image."""
    groups = (status.get(name) or () for name in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"))
    waiting = ((one.get("state") or {}).get("waiting") or {} for group in groups for one in group)
    return any(str(one.get("reason") or "").startswith(("ErrImage", "ImagePull")) for one in waiting)


def find_container(pod: Obj, name: str) -> Obj | None:
    return next((c for c in every_container(pod) if c["name"] == name), None)


def is_sidecar(container: Obj) -> bool:
    """For init containers: one that keeps running beside the main ones."""
    return container.get("restartPolicy") == "Always"


def sidecars(pod: Obj) -> Sequence[Obj]:
    return [c for c in init_containers(pod) if is_sidecar(c)]


def restart_policy(pod: Obj) -> str:
    policy: str = pod["spec"].get("restartPolicy") or "Always"
    return policy


def host_network(pod: Obj) -> bool:
    return bool(pod["spec"].get("hostNetwork"))


def is_deleting(pod: Obj) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def phase(pod: Obj) -> str:
    found: str = (pod.get("status") or {}).get("phase") or "Pending"
    return found


def is_finished(pod: Obj) -> bool:
    return phase(pod) in ("Succeeded", "Failed")


def status_of(pod: Obj, name: str) -> Obj | None:
    """The container's status as the API has it."""
    status = pod.get("status") or {}
    for group in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for entry in status.get(group) or ():
            if entry["name"] == name:
                found: Obj = entry
                return found
    return None


def container_hash(container: Mapping[str, Any]) -> str:
    """Of what makes a running container another one: as upstream, its name and image only (the rest is immutable)."""
    picked = orjson.dumps({"name": container["name"], "image": container.get("image", "")}, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(picked).hexdigest()[:16]


def grace_period(pod: Obj) -> float:
    """Seconds a pod gets to end: the deletion's if it is being deleted, else the spec's; never under 1."""
    metadata = pod["metadata"]
    if metadata.get("deletionTimestamp") and metadata.get("deletionGracePeriodSeconds") is not None:
        return max(1.0, float(metadata["deletionGracePeriodSeconds"]))
    seconds = pod["spec"].get("terminationGracePeriodSeconds")
    return max(1.0, 30.0 if seconds is None else float(seconds))


def started_at(pod: Obj) -> datetime | None:
    """status.startTime."""
    text = (pod.get("status") or {}).get("startTime")
    return parse_rfc3339(text) if text else None


def listed(names: Sequence[str]) -> str:
    """Go's %v of a []string."""
    return f"[{' '.join(names)}]"


def seconds_text(seconds: float) -> str:
    """Go's Duration.String for whole seconds: 10s, 1m20s, 5m0s."""
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def duration_text(seconds: float) -> str:
    """Go's Duration.String rounded to milliseconds: 12ms, 1.234s, 1m2.5s."""
    milli = round(seconds * 1000)
    if milli < 1000:
        return f"{milli}ms" if milli else "0s"
    minutes, rest = divmod(milli, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if not minutes:
        return text
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
