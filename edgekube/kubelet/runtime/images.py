"""Images of this node: names, listing, pulling, loading, removing.

Listing and inspecting go through rest.py (the kubelet does both all the time). podman-py does what is rare and where its sync call is
handy: loading and removing. It is imported at the first such call, in the worker thread: 48 ms and 9.2 MB of PSS (the rest of this package:
3.7 MB) that a node which only runs what it has never pays. Pulling (pulls.py) streams through rest.py as well: podman-py's pull hides the
registry's own words.
"""

import asyncio
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from edgekube.kubelet.runtime import archive
from edgekube.kubelet.runtime.names import as_query, expand
from edgekube.kubelet.runtime.protocol import ImageInfo, RuntimeDown, RuntimeFailure
from edgekube.kubelet.runtime.pulls import Puller
from edgekube.kubelet.runtime.rest import Rest, RestError
from edgekube.kubelet.runtime.settings import RuntimeConfig

log = logging.getLogger(__name__)

_LOAD_SECONDS = 3600.0
_IMAGE_ID = re.compile(r"(sha256:)?[0-9a-f]{12,64}")


class Images:
    """Everything about images behind the Runtime protocol."""

    def __init__(self, rest: Rest, config: RuntimeConfig, *, parallel: int = 3) -> None:
        self._rest, self._socket = rest, config.service_socket
        self._index = None if config.socket else config.storage / "overlay-images" / "images.json"
        self.puller = Puller(rest, file=config.registries, certs=config.certs)
        self._listed: tuple[int, Sequence[ImageInfo]] | None = None  # state of the index, what was found then
        self._known: dict[str, Mapping[str, Any]] = {}  # id -> its config, which never changes
        self._gate, self._loading = asyncio.Semaphore(parallel), asyncio.Semaphore(1)

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
        async with self._gate:
            await self.puller.pull(name, username=username, password=password)
        found = await self.get(ref)
        if found is None:
            raise RuntimeFailure("ErrImagePull", f'failed to pull image "{name}": it is not there after the pull')
        log.info("image pulled", extra={"image": name, "id": found.id[7:19]})
        return found

    async def load(self, path: Path) -> Sequence[str]:
        """Take in what the archive or layout (see archive.py) has for this machine: the names it gave, an id for an image without one."""
        async with self._loading:
            try:
                async with asyncio.timeout(_LOAD_SECONDS):
                    names, skipped = await asyncio.to_thread(_load, self._socket, path)
            except TimeoutError as error:
                raise RuntimeDown(f"podman did not load {path} within {_LOAD_SECONDS:g} s") from error
        log.info("image loaded", extra={"path": str(path), "images": ",".join(names)})
        if skipped:
            log.warning("images for other machines left out", extra={"path": str(path), "images": "; ".join(skipped)})
        return names

    async def unpack(self, path: Path, name: str) -> Sequence[str]:
        """An image from a tar of plain files."""
        async with self._loading:
            await asyncio.to_thread(_send, self._socket, path, f"/images/import?reference={quote(name, safe='')}", archive.unpacked(path))
        return [name]

    async def tag(self, name: str, more: str) -> None:
        """Give the image `name` one more name. Raises RuntimeFailure."""
        try:
            await self._rest.call("POST", f"/images/{name}/tag", query=as_query(more))
        except RestError as error:
            raise RuntimeFailure("ImageTagError", f"failed to name image {name} {more}: {error}") from error

    async def untag(self, name: str) -> None:
        """Take one name away; the image itself stays, also without any."""
        try:
            await self._rest.call("POST", f"/images/{name}/untag", query=as_query(name))
        except RestError as error:
            if error.status != 404:
                raise RuntimeFailure("ImageTagError", f"failed to take the name {name} away: {error}") from error

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


def _load(socket: Path, path: Path) -> tuple[list[str], Sequence[str]]:
    """The names, and what was left out."""
    try:
        plan = archive.look(path, archive.this_machine())
        if plan.whole:
            return _send(socket, path, "/images/load", archive.unpacked(path)), plan.skipped
        names: list[str] = []
        for load in plan.loads:
            found = _send(socket, path, "/images/load", archive.repacked(path, load))
            names += load.names or found
            for more in load.names[1:]:
                _send(socket, path, f"/images/{load.names[0]}/tag?{urlencode(as_query(more))}", ())
        return names, plan.skipped
    except archive.ArchiveError as error:
        raise RuntimeFailure("ImageLoadError", str(error)) from error


def _send(socket: Path, path: Path, target: str, data: Iterable[bytes]) -> list[str]:
    """POST `data`, made of the file; the names in the answer."""
    from podman import PodmanClient
    from podman.errors import APIError

    try:
        with PodmanClient(base_url=f"unix://{socket}", timeout=int(_LOAD_SECONDS)) as client:
            body: Any = data  # requests takes it, its types do not say so
            answer = client.api.post(target, data=body, headers={"Content-type": "application/x-tar"})
            answer.raise_for_status()
            return list(answer.json().get("Names") or ()) if answer.content else []
    except APIError as error:
        raise RuntimeFailure("ImageLoadError", f"failed to load {path}: {_load_words(str(error.explanation or error))}") from error
    except OSError as error:
        raise RuntimeFailure("ImageLoadError", f"failed to load {path}: {error}") from error


def _load_words(text: str) -> str:
    """Podman says of each format why it is not that; full disks and such are what matters."""
    for words in ("no space left on device", "unexpected EOF"):
        if words in text:
            return words
    return text


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
