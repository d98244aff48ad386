"""Images of this node: names, listing, pulling, loading, removing.

Listing and inspecting go through rest.py (the kubelet does both all the time). podman-py does what is rare and where its sync call is
handy: load and remove. It is imported at the first such call, in the worker thread: 48 ms and 9.2 MB of PSS (the rest of this package:
3.7 MB) that a node which only runs what it has never pays. Pulling streams through rest.py as well: podman-py's pull hides the registry's
own words.
"""

import asyncio
import base64
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekube.kubelet.runtime.protocol import ImageInfo, RuntimeDown, RuntimeFailure
from edgekube.kubelet.runtime.rest import Rest, RestError

log = logging.getLogger(__name__)

_SILENCE_SECONDS = 120.0
_LOAD_SECONDS = 900.0
_IMAGE_ID = re.compile(r"(sha256:)?[0-9a-f]{12,64}")


def expand(ref: str) -> str:
    """The whole name: `busybox` -> `docker.io/library/busybox:latest`. A digest needs no tag."""
    first, slash, _ = ref.partition("/")
    if not slash:
        ref = f"docker.io/library/{ref}"
    elif "." not in first and ":" not in first and first != "localhost":
        ref = f"docker.io/{ref}"
    elif first in ("docker.io", "index.docker.io"):
        rest = ref.split("/", 1)[1]
        ref = f"docker.io/{rest}" if "/" in rest else f"docker.io/library/{rest}"
    if "@" in ref:
        name, _, digest = ref.partition("@")
        folder, separator, last = name.rpartition("/")
        return f"{folder}{separator}{last.partition(':')[0]}@{digest}"
    return ref if ":" in ref.rpartition("/")[2] else f"{ref}:latest"


class Images:
    """Everything about images behind the Runtime protocol."""

    def __init__(self, rest: Rest, socket: Path, *, index: Path | None = None, parallel: int = 3) -> None:
        self._rest, self._socket, self._index = rest, socket, index
        self._listed: tuple[int, Sequence[ImageInfo]] | None = None  # state of the index, what was found then
        self._known: dict[str, Mapping[str, Any]] = {}  # id -> its config, which never changes
        self._gate = asyncio.Semaphore(parallel)

    async def list(self) -> Sequence[ImageInfo]:
        """All of them. Podman is asked only when the store's index has changed: each answer makes it write two files per image."""
        state = self._state()
        if state and self._listed is not None and self._listed[0] == state:
            return self._listed[1]
        found = await self._list()
        self._listed = (state, found)
        return found

    def _state(self) -> int:
        try:
            return self._index.stat().st_mtime_ns if self._index is not None else 0
        except OSError:
            return 0

    async def _list(self) -> Sequence[ImageInfo]:
        entries = await self._rest.call("GET", "/images/json") or ()
        found = []
        for entry in entries:
            identity = str(entry["Id"]).removeprefix("sha256:")
            if identity not in self._known:
                whole = await self._inspect(identity)
                if whole is None:
                    continue
                self._known[identity] = _config(whole)
            tags, digests = entry.get("RepoTags") or (), entry.get("RepoDigests") or ()
            found.append(_info(identity, tags, digests, int(entry.get("Size") or 0), self._known[identity]))
        self._known = {info.id.removeprefix("sha256:"): self._known[info.id.removeprefix("sha256:")] for info in found}
        return found

    async def get(self, ref: str) -> ImageInfo | None:
        """By id or name; a name is what Docker means by it, never a search."""
        if not ref:
            return None
        whole = await self._inspect(expand(ref))
        if whole is None and _IMAGE_ID.fullmatch(ref):
            whole = await self._inspect(ref.removeprefix("sha256:"))
        if whole is None:
            return None
        identity = str(whole["Id"]).removeprefix("sha256:")
        self._known[identity] = _config(whole)
        return _info(
            identity, whole.get("RepoTags") or (), whole.get("RepoDigests") or (), int(whole.get("Size") or 0), self._known[identity]
        )

    async def stop_signal(self, image_id: str) -> str:
        """The image's own, "" for none."""
        identity = image_id.removeprefix("sha256:")
        if identity not in self._known:
            await self.get(image_id)
        return self._known.get(identity, {}).get("StopSignal") or ""

    async def pull(self, ref: str, *, username: str = "", password: str = "") -> ImageInfo:
        name = expand(ref)
        headers = _auth_header(username, password) if username or password else {}
        failure = ""
        async with self._gate:
            try:
                query = {"reference": f"docker://{name}", "quiet": True, "policy": "always"}
                async for document in self._rest.lines("POST", "/images/pull", query=query, headers=headers, timeout=_SILENCE_SECONDS):
                    failure = document.get("error") or failure
            except RestError as error:
                failure = str(error)
        if failure:
            raise RuntimeFailure("ErrImagePull", f'failed to pull image "{name}": {_plain(failure)}')
        found = await self.get(ref)
        if found is None:
            raise RuntimeFailure("ErrImagePull", f'failed to pull image "{name}": it is not there after the pull')
        log.info("image pulled", extra={"image": name, "id": found.id[7:19]})
        return found

    async def load(self, path: Path) -> Sequence[str]:
        """The names that the archive (docker or OCI, plain or compressed) gave to its images."""
        async with self._gate:
            try:
                async with asyncio.timeout(_LOAD_SECONDS):
                    names = await asyncio.to_thread(_load, self._socket, path)
            except TimeoutError as error:
                raise RuntimeDown(f"podman did not load {path} within {_LOAD_SECONDS:g} s") from error
        log.info("image loaded", extra={"path": str(path), "images": ",".join(names)})
        return names

    async def remove(self, image_id: str) -> None:
        """With all its names; no error if it is gone. Raises RuntimeFailure(ImageInUse) while a container needs it."""
        try:
            await asyncio.to_thread(_remove, self._socket, image_id.removeprefix("sha256:"))
        finally:
            self._known.pop(image_id.removeprefix("sha256:"), None)

    async def _inspect(self, name: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = await self._rest.call("GET", f"/images/{name}/json")
        except RestError as error:
            if error.status == 404:
                return None
            raise RuntimeFailure("ImageInspectError", f'failed to inspect image "{name}": {error}') from error
        return found


def _config(whole: Mapping[str, Any]) -> Mapping[str, Any]:
    return whole.get("Config") or {}


def _info(identity: str, tags: Sequence[str], digests: Sequence[str], size: int, config: Mapping[str, Any]) -> ImageInfo:
    return ImageInfo(
        id=f"sha256:{identity}",
        tags=tuple(tags),
        digests=tuple(digests),
        size=size,
        user=config.get("User") or "",
        env=tuple(config.get("Env") or ()),
        entrypoint=tuple(config.get("Entrypoint") or ()),
        command=tuple(config.get("Cmd") or ()),
        working_dir=config.get("WorkingDir") or "",
        stop_signal=config.get("StopSignal") or "",
        volumes=tuple(config.get("Volumes") or ()),
    )


def _auth_header(username: str, password: str) -> dict[str, str]:
    text = json.dumps({"username": username, "password": password})
    return {"X-Registry-Auth": base64.urlsafe_b64encode(text.encode()).decode()}


def _plain(failure: str) -> str:
    """Without podman's own preface."""
    return re.sub(r"^initializing source docker://\S+: ", "", failure.strip())


def _load(socket: Path, path: Path) -> list[str]:
    from podman import PodmanClient
    from podman.errors import APIError

    try:
        with PodmanClient(base_url=f"unix://{socket}", timeout=int(_LOAD_SECONDS)) as client, path.open("rb") as archive:
            answer = client.api.post("/images/load", data=archive, headers={"Content-type": "application/x-tar"})
            answer.raise_for_status()
            names: list[str] = answer.json().get("Names") or []
            return names
    except APIError as error:
        raise RuntimeFailure("ImageLoadError", f"failed to load {path}: {error.explanation or error}") from error
    except OSError as error:
        raise RuntimeFailure("ImageLoadError", f"failed to load {path}: {error}") from error


def _remove(socket: Path, identity: str) -> None:
    """Name by name: podman untags all but the last and deletes with that, never taking a container along as its `force` would."""
    from podman import PodmanClient
    from podman.errors import APIError, ImageNotFound, NotFound

    try:
        with PodmanClient(base_url=f"unix://{socket}", timeout=120) as client:
            names = client.images.get(identity).tags or [identity]
            if client.containers.list(all=True, filters={"ancestor": identity}, sparse=True):
                raise RuntimeFailure("ImageInUse", f"image {identity[:12]} is in use by a container")
            for name in names:
                client.images.remove(name)
    except (NotFound, ImageNotFound):
        return
    except APIError as error:
        raise RuntimeFailure("ImageRemoveError", f"failed to remove image {identity[:12]}: {error.explanation or error}") from error
    except OSError as error:
        raise RuntimeDown(f"podman does not answer: {error}") from error
