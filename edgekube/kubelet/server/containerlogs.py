"""/containerLogs/{namespace}/{pod}/{container}: which attempt of a container is meant (pure), and its log as the answer."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from edgekube.kubelet.runtime.logs import LogOptions, log_file, read_log
from edgekube.kubelet.runtime.protocol import Runtime, RuntimeFailure
from edgekube.kubelet.server.http import PLAIN, Reply, Request
from edgekube.kubelet.server.protocol import KnownPod, Pods
from edgekube.lib.clock import Clock, parse_rfc3339

_LISTS = (
    ("containers", "containerStatuses"),
    ("initContainers", "initContainerStatuses"),
    ("ephemeralContainers", "ephemeralContainerStatuses"),
)
_PULLING = {"ErrImagePull": "image can't be pulled", "ImagePullBackOff": "trying and failing to pull image"}


class NoLog(Exception):
    """There is nothing to show; the message is for the client."""


def options_of(request: Request, clock: Clock) -> LogOptions:
    """PodLogOptions from the query. Raises ValueError."""
    tail = request.param("tailLines") or request.param("tail")
    since = None
    if text := request.param("sinceTime"):
        since = parse_rfc3339(text)
    elif text := request.param("sinceSeconds"):
        since = clock.now() - timedelta(seconds=int(text))
    stream = request.param("stream") or "All"
    if stream not in ("All", "Stdout", "Stderr"):
        raise ValueError("stream")
    limit = request.param("limitBytes")
    return LogOptions(
        follow=request.flag("follow"),
        tail=int(tail) if tail and tail != "all" else None,
        since=since,
        timestamps=request.flag("timestamps"),
        limit=int(limit) if limit else None,
        stream="" if stream == "All" else stream.lower(),
    )


def find_status(pod: Mapping[str, Any], container: str) -> Mapping[str, Any] | None:
    """The container's entry of the pod's status, wherever it stands."""
    for _, name in _LISTS:
        for status in (pod.get("status") or {}).get(name) or ():
            if status["name"] == container:
                found: Mapping[str, Any] = status
                return found
    return None


def has_container(pod: Mapping[str, Any], container: str) -> bool:
    return any(one["name"] == container for name, _ in _LISTS for one in pod["spec"].get(name) or ())


def plan_log(pod: Mapping[str, Any], container: str, *, previous: bool) -> str:
    """The containerID whose log is meant. Raises NoLog worded as upstream."""
    name = pod["metadata"]["name"]
    status = find_status(pod, container)
    if status is None:
        raise NoLog(f'container "{container}" in pod "{name}" is not available')
    state = status.get("state") or {}
    last = ((status.get("lastState") or {}).get("terminated")) or {}
    if previous:
        if not last.get("containerID"):
            raise NoLog(f'previous terminated container "{container}" in pod "{name}" not found')
        return str(last["containerID"])
    if "running" in state:
        return str(status.get("containerID", ""))
    if "terminated" in state or last:
        found = (state.get("terminated") or {}).get("containerID") or last.get("containerID")
        if not found:
            raise NoLog(f'container "{container}" in pod "{name}" is terminated')
        return str(found)
    if "waiting" in state:
        reason = state["waiting"].get("reason", "")
        raise NoLog(f'container "{container}" in pod "{name}" is waiting to start: {_PULLING.get(reason, reason)}')
    raise NoLog(f'container "{container}" in pod "{name}" is waiting to start - no logs yet')


class ContainerLogs:
    """Answers log requests."""

    def __init__(self, *, pods: Pods, runtime: Runtime, clock: Clock, log_dir: Path) -> None:
        self._pods, self._runtime, self._clock, self._log_dir = pods, runtime, clock, log_dir

    async def serve(self, request: Request, namespace: str, name: str, container: str) -> Reply:
        try:
            options = options_of(request, self._clock)
        except ValueError:
            return Reply(400, b'{"message": "Unable to decode query."}')
        pod = self._pods.find(namespace, name)
        if pod is None:
            return Reply(404, f'pod "{name}" does not exist'.encode())
        if not has_container(pod.obj, container):
            return Reply(404, f'container "{container}" not found in pod "{name}"'.encode())
        try:
            return await self._answer(pod, container, options, previous=request.flag("previous"))
        except (NoLog, RuntimeFailure) as error:
            return Reply(400, str(error).encode())

    async def _answer(self, pod: KnownPod, container: str, options: LogOptions, *, previous: bool) -> Reply:
        identity = plan_log(pod.obj, container, previous=previous)
        container_id = identity.partition("://")[2]
        info = await self._runtime.inspect(container_id)
        # The containers of a finished pod are gone, its logs stay until the pod is deleted.
        path = info.log_path if info is not None else self._left_behind(pod, container, previous=previous)

        async def is_over() -> bool:
            try:
                now = await self._runtime.inspect(container_id)
            except RuntimeFailure:
                return False  # podman is away for a moment: the file is still there to be followed
            return now is None or now.state == "exited"

        pieces = read_log(path, options, is_over=is_over)
        try:
            first = await anext(pieces, b"")
        except FileNotFoundError as error:
            raise NoLog(f"unable to retrieve container logs for {identity}: {error.strerror}") from error
        return Reply(200, _chain(first, pieces), PLAIN)

    def _left_behind(self, pod: KnownPod, container: str, *, previous: bool) -> Path:
        """The file of an attempt that the runtime no longer knows."""
        restarts = int((find_status(pod.obj, container) or {}).get("restartCount", 0))
        return log_file(self._log_dir, pod.ref.namespace, pod.ref.name, pod.ref.uid, container, max(0, restarts - previous))


async def _chain(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async with contextlib.aclosing(rest) as pieces:
        async for piece in pieces:
            yield piece
