"""Images for containers: pull policy, back-off, credentials, one pull at a time, and the Events people read.

Upstream: pkg/kubelet/images/image_manager.go. Back-off is per pod and image: 10 s doubling to 300 s, forgotten when a pull succeeds.
Always means what it says, also on a node without a network: ErrImagePull although the image is there. IfNotPresent takes what is there.
"""

import asyncio
import re
from collections.abc import Iterable, Sequence

from edgekube.api.types import Obj
from edgekube.kubelet.credentials import Credential, lookup
from edgekube.kubelet.happenings import PodEvents
from edgekube.kubelet.podspec import duration_text
from edgekube.kubelet.runtime.protocol import ImageInfo, Runtime, RuntimeDown, RuntimeFailure
from edgekube.lib.clock import Clock

BASE, CAP = 10.0, 300.0
SHOWN = 2.0  # seconds that ErrImagePull is shown before ImagePullBackOff takes over
_NAME = re.compile(
    r"^(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]+)?/)?[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
    r"(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*(?::[\w][\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?$"
)
_LOCAL_ID = re.compile(r"^(?:sha256:)?[0-9a-f]{64}$")


class ImageProblem(Exception):
    """The container cannot start for want of its image; `reason` and the text go into its status. `retry` seconds from now."""

    def __init__(self, reason: str, message: str, retry: float) -> None:
        super().__init__(message)
        self.reason, self.message, self.retry = reason, message, retry


def default_policy(image: str) -> str:
    """What an unset imagePullPolicy means."""
    name = image.split("@", 1)[0].rsplit("/", 1)[-1]
    return "Always" if "@" not in image and (":" not in name or name.endswith(":latest")) else "IfNotPresent"


def status_name(info: ImageInfo) -> str:
    """By digest where the image came from a registry, else its id."""
    return info.digests[0] if info.digests else info.id


class Images:
    """See the module."""

    def __init__(self, *, runtime: Runtime, clock: Clock, events: PodEvents) -> None:
        self._runtime, self._clock, self._events = runtime, clock, events
        self._pulling = asyncio.Lock()
        self._names: dict[str, str] = {}
        self._backoff: dict[tuple[str, str], tuple[float, float, str]] = {}  # (pod uid, image) -> delay, since, last error

    async def ensure(self, pod: Obj, container: Obj, secrets: Sequence[Obj]) -> ImageInfo:
        """The image, pulled if its policy says so. Raises ImageProblem, RuntimeDown."""
        name, image = container["name"], container.get("image") or ""
        if not (_NAME.match(image) or _LOCAL_ID.match(image)):
            message = f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": invalid reference format'
            self._events.container(pod, name, "InspectFailed", message, warning=True)
            raise ImageProblem("InvalidImageName", message, CAP)
        info = await self._ensure(pod, name, image, container, secrets)
        self._names[info.id] = status_name(info)
        return info

    async def _ensure(self, pod: Obj, name: str, image: str, container: Obj, secrets: Sequence[Obj]) -> ImageInfo:
        found = await self._runtime.image(image)
        policy = container.get("imagePullPolicy") or default_policy(image)
        if found is not None and policy != "Always":
            message = f'Container image "{image}" already present on machine and can be accessed by the pod'
            self._events.container(pod, name, "Pulled", message)
            return found
        if policy == "Never":
            message = f'Container image "{image}" is not present with pull policy of Never'
            self._events.container(pod, name, "ErrImageNeverPull", message, warning=True)
            raise ImageProblem("ErrImageNeverPull", message, BASE)
        self._check_backoff(pod, name, image)
        return await self._pull(pod, name, image, lookup(image, secrets))

    def _check_backoff(self, pod: Obj, name: str, image: str) -> None:
        entry = self._backoff.get((pod["metadata"]["uid"], image))
        if entry is None:
            return
        delay, since, error = entry
        left = since + delay - self._clock.monotonic()
        if left > 0:
            message = f'Back-off pulling image "{image}"'
            self._events.container(pod, name, "BackOff", message)
            raise ImageProblem("ImagePullBackOff", f"{message}: ErrImagePull: {error}", left)

    async def _pull(self, pod: Obj, name: str, image: str, credentials: Sequence[Credential]) -> ImageInfo:
        waited = self._clock.monotonic()
        async with self._pulling:
            self._events.container(pod, name, "Pulling", f'Pulling image "{image}"')
            began = self._clock.monotonic()
            try:
                info = await self._try(image, credentials)
            except RuntimeDown:
                raise
            except RuntimeFailure as error:
                raise self._failed(pod, name, image, error) from error
            ended = self._clock.monotonic()
        self._backoff.pop((pod["metadata"]["uid"], image), None)
        took, whole = duration_text(ended - began), duration_text(ended - waited)
        message = f'Successfully pulled image "{image}" in {took} ({whole} including waiting). Image size: {info.size} bytes.'
        self._events.container(pod, name, "Pulled", message)
        return info

    async def _try(self, image: str, credentials: Sequence[Credential]) -> ImageInfo:
        failure: RuntimeFailure | None = None
        for one in credentials or (Credential(),):
            try:
                return await self._runtime.pull(image, username=one.username, password=one.password)
            except RuntimeDown:
                raise
            except RuntimeFailure as error:
                failure = error
        raise failure or RuntimeFailure("ErrImagePull", f"no way to pull {image}")

    def _failed(self, pod: Obj, name: str, image: str, error: RuntimeFailure) -> ImageProblem:
        key, text = (pod["metadata"]["uid"], image), str(error)
        delay = min(CAP, self._backoff[key][0] * 2) if key in self._backoff else BASE
        self._backoff[key] = (delay, self._clock.monotonic(), text)
        self._events.container(pod, name, "Failed", f'Failed to pull image "{image}": {text}', warning=True)
        return ImageProblem("ErrImagePull", text, SHOWN)

    async def names(self, ids: Iterable[str]) -> dict[str, str]:
        """image id -> imageID as statuses show it."""
        for one in ids:
            if one not in self._names:
                info = await self._runtime.image(one)
                self._names[one] = one if info is None else status_name(info)
        return {one: self._names.get(one, one) for one in ids}

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        for key in [key for key in self._backoff if key[0] == uid]:
            del self._backoff[key]
