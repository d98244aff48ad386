"""`edgekube images`: bring images to this node from files, list, pin and remove them. Talks to the node's own image store; no registry.

The node may run or not: where its container runtime does not answer, one is started for the time of the command.
"""

import asyncio
import contextlib
import shutil
import sys
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path

from edgekube.app.removal import runtime_config
from edgekube.cli.main import Failure, add_settings
from edgekube.cli.tables import show
from edgekube.config import Settings
from edgekube.kubelet.imagebook import Book, ImageBook
from edgekube.kubelet.runtime.archive import SUFFIXES
from edgekube.kubelet.runtime.cgroups import Hierarchy
from edgekube.kubelet.runtime.images import Images
from edgekube.kubelet.runtime.names import expand
from edgekube.kubelet.runtime.protocol import ImageInfo, RuntimeDown, RuntimeFailure
from edgekube.kubelet.runtime.rest import Rest, RestError
from edgekube.kubelet.runtime.service import Service
from edgekube.kubelet.runtime.settings import RuntimeConfig
from edgekube.lib.pidfile import running
from edgekube.lib.process import ProgramMissing

_START_SECONDS = 30.0


def arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str) -> ArgumentParser:
        found = actions.add_parser(name, help=text, description=text, argument_default=SUPPRESS)
        add_settings(found)
        return found

    load = action("import", "import docker or OCI archives (plain, gzip, zstd, xz); they are pinned")
    load.add_argument("files", nargs="+", metavar="FILE", help="an archive, an OCI layout or a folder of archives; - is standard input")
    load.add_argument("--rootfs", metavar="NAME", default="", help="FILE is a plain tar of a file system; make this image from it")
    load.add_argument("--no-pin", action="store_true", default=False, help="let garbage collection remove them")
    action("list", "list the node's images")
    for name, text in (("pin", "keep images from garbage collection"), ("unpin", "let garbage collection remove images again")):
        action(name, text).add_argument("refs", nargs="+", metavar="IMAGE", help="name or id")
    action("pull", "pull images as a pod would").add_argument("refs", nargs="+", metavar="IMAGE", help="name")
    action("explain", "show where an image would be asked for").add_argument("refs", nargs="+", metavar="IMAGE", help="name")
    remove = action("rm", "remove images")
    remove.add_argument("refs", nargs="+", metavar="IMAGE", help="name or id")
    remove.add_argument("--force", action="store_true", default=False, help="also what is pinned; of what is in use the name goes")


def main(settings: Settings, arguments: Namespace) -> int:
    """Do what was asked."""
    try:
        return asyncio.run(_main(settings, arguments))
    except PermissionError as error:
        raise Failure(f"{error.filename} is for root only: try sudo") from None
    except (RuntimeFailure, RestError, ProgramMissing) as error:
        raise Failure(str(error)) from None


async def _main(settings: Settings, arguments: Namespace) -> int:
    async with _store(settings) as store:
        if arguments.action == "import":
            for name in arguments.files:
                await store.take(name, rootfs=arguments.rootfs, pin=not arguments.no_pin)
        elif arguments.action == "list":
            await store.show()
        elif arguments.action == "rm":
            for ref in arguments.refs:
                await store.remove(ref, force=arguments.force)
        elif arguments.action == "pull":
            for ref in arguments.refs:
                print(f"pulled {(await store.images.pull(ref)).tags[0]}")
        elif arguments.action == "explain":
            for ref in arguments.refs:
                await store.explain(ref)
        else:
            for ref in arguments.refs:
                await store.pin(ref, on=arguments.action == "pin")
    return 0


@contextlib.asynccontextmanager
async def _store(settings: Settings) -> "AsyncIterator[_Store]":
    config = runtime_config(settings)
    service = Service(config, Hierarchy())
    own = not await _answers(settings, service.rest, config.service_socket)
    try:
        if own:
            await service.ensure()
        yield _Store(config, service.rest)
    finally:
        if own:
            await service.end()
        service.rest.close()


async def _answers(settings: Settings, rest: Rest, socket: Path) -> bool:
    """A node that has just started may still be starting its container runtime. Raises Failure."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_START_SECONDS):
            while True:
                with contextlib.suppress(RuntimeDown, RestError):
                    await rest.ping(5.0)
                    return True
                if not running(settings.run_dir / "edgekube.pid"):
                    break
                await asyncio.sleep(0.05)
    if settings.container_runtime_socket or running(settings.run_dir / "edgekube.pid"):
        raise Failure(f"the node's container runtime does not answer at {socket}: see its log")
    return False


class _Store:
    """The node's images."""

    def __init__(self, config: RuntimeConfig, rest: Rest) -> None:
        self._config, self._rest = config, rest
        self.images = Images(rest, config)
        self._book = ImageBook(config.data_dir)

    async def take(self, name: str, *, rootfs: str, pin: bool) -> None:
        for path in _files(name):
            with _spooled(path, self._config.scratch) as file:
                names = await self.images.unpack(file, rootfs) if rootfs else await self.images.load(file)
            if pin:
                self._book.change(partial(_pinned, refs=[_ref(one) for one in names]))
            for image in names:
                print(f"imported {image}")

    async def show(self) -> None:
        book, used = self._book.read(), await self._used()
        rows = []
        for image in await self.images.list():
            digest = next((one.rpartition("@")[2][:19] for one in image.digests), "<none>")
            marks = (book.pinned_by(image) or "no", "yes" if image.id in used else "no")
            names = image.tags or image.digests or ("<none>",)
            rows += [(name, image.id[7:19], f"{image.size / 1e6:.1f}MB", digest, *marks) for name in names]
        show([("IMAGE", "ID", "SIZE", "DIGEST", "PINNED", "IN USE"), *sorted(rows)])

    async def explain(self, ref: str) -> None:
        name = expand(ref)
        endpoints = await self.images.puller.plan(name)
        if self.images.puller.trouble:
            raise Failure(self.images.puller.trouble)
        print(f"{name} is asked for at:")
        for number, one in enumerate(endpoints, start=1):
            kind = "mirror" if one.mirror else "its own registry"
            who = one.auth.username or ("a token" if one.auth else "nobody")
            print(f"  {number}. {one.reference} ({kind}, as {who}, TLS {'not checked' if one.insecure else 'checked'})")

    async def pin(self, ref: str, *, on: bool) -> None:
        image = await self.images.get(ref)
        if on:
            image = image or _missing(ref)
            self._book.change(lambda book: book.pin(_named(ref, image)))
            print(f"pinned {_named(ref, image)}")
            return
        refs = {expand(ref), ref} | ({image.id, *image.tags, *image.digests} if image else set())
        book = self._book.change(lambda book: book.unpin(*refs))
        if image is not None and (why := book.pinned_by(image)):
            raise Failure(f"{ref} stays pinned by {why}: take that file away")
        print(f"unpinned {ref}")

    async def remove(self, ref: str, *, force: bool) -> None:
        """One name, or with the last one or by id the whole image."""
        image = await self.images.get(ref) or _missing(ref)
        book = self._book.read()
        whole = _named(ref, image) == image.id or len(image.tags) <= 1
        why = book.pinned_by(image)
        if why and not force:
            raise Failure(f"{ref} is pinned ({why}): unpin it first, or use --force")
        used = whole and image.id in await self._used()
        if used and not force:
            raise Failure(f"{ref} is in use by a container: delete its pod first; with --force its name goes, the image stays until then")
        self._book.change(lambda book: _forgotten(book, ref, image))
        if whole and not used:
            await self.images.remove(image.id)
        else:
            for name in image.tags if _named(ref, image) == image.id else (expand(ref),):
                await self.images.untag(name)
        print(f"removed {ref}")

    async def _used(self) -> set[str]:
        found = await self._rest.call("GET", "/containers/json", query={"all": True}) or ()
        return {f"sha256:{str(one.get('ImageID') or '').removeprefix('sha256:')}" for one in found}


def _pinned(book: Book, refs: Sequence[str]) -> Book:
    return book.pin(*refs)


def _missing(ref: str) -> ImageInfo:
    raise Failure(f"there is no image {ref} on this node: edgekube images list shows what there is")


def _named(ref: str, image: ImageInfo) -> str:
    """What of the image `ref` means: one of its names, or the image itself."""
    name = expand(ref)
    return name if name in (*image.tags, *image.digests) else image.id


def _ref(name: str) -> str:
    """As podman answers a load: a name, or an id."""
    bare = name.removeprefix("sha256:")
    return f"sha256:{bare}" if len(bare) == 64 and ":" not in bare and "/" not in bare else expand(name)


def _forgotten(book: Book, ref: str, image: ImageInfo) -> Book:
    """Nothing of what goes is pinned any more."""
    name = _named(ref, image)
    return book.unpin(name, *((image.id, *image.tags, *image.digests) if name == image.id or len(image.tags) <= 1 else ()))


def _files(name: str) -> Iterator[Path]:
    """Archives and layouts behind an argument."""
    path = Path("/dev/stdin" if name == "-" else name)
    if not path.is_dir() or (path / "oci-layout").exists():
        yield path
        return
    found = sorted(one for one in path.iterdir() if one.name.endswith(SUFFIXES) and one.name[0] != ".")
    if not found:
        raise Failure(f"{name} has no image archives ({', '.join(SUFFIXES)})")
    yield from found


@contextlib.contextmanager
def _spooled(path: Path, scratch: Path) -> Iterator[Path]:
    """An archive is read twice: what comes through a pipe goes to a file first."""
    if str(path) != "/dev/stdin":
        if not path.exists():
            raise Failure(f"{path} can not be read: no such file")
        yield path
        return
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = scratch / "stdin.tar"
    try:
        with aside.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
        yield aside
    finally:
        aside.unlink(missing_ok=True)
