"""Image archives from files: what is inside, which of it is for this machine, and how it is given to podman.

Reads docker and OCI archives (plain, gzip, zstd, bzip2, xz) and OCI layouts in a folder; writes nothing. Podman takes most archives as they
are. It does not take OCI archives with several images, and names those that containerd or buildx wrote after their tag alone: of such an
archive each image for this machine is streamed again as an archive of its own (`repacked`), blob by blob, nothing lands on the disk.
"""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import platform
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from edgekube.kubelet.machine import ARCHITECTURES
from edgekube.kubelet.runtime.names import expand
from edgekube.lib import zstd

SUFFIXES = (".tar", ".tgz", ".tzst", ".txz", ".tbz", ".tar.gz", ".tar.zst", ".tar.xz", ".tar.bz2")
REF_NAME, CONTAINERD_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"
_SMALL, _ALL_SMALL = 1 << 20, 64 << 20  # JSON is kept while an archive is looked through: one file, all together
_CHUNK = 1 << 18
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_ARM = {"v8": 8, "v7": 7, "v6": 6, "v5": 5}


class ArchiveError(Exception):
    """The file can not be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Platform:
    """A machine's, or an image's."""

    architecture: str
    variant: str = ""
    os: str = "linux"

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


@dataclass(frozen=True, slots=True)
class Load:
    """One image to be given to podman in an archive of its own."""

    names: tuple[str, ...]
    descriptor: Mapping[str, Any]
    blobs: frozenset[str]  # members that it needs


@dataclass(frozen=True, slots=True)
class Plan:
    """`whole`: podman reads the file as it is. `skipped`: what is in it for other machines."""

    whole: bool = False
    loads: Sequence[Load] = ()
    skipped: Sequence[str] = ()


def this_machine() -> Platform:
    """What pods run on here."""
    name = platform.machine()
    variant = {"aarch64": "v8", "armv7l": "v7", "armv6l": "v6"}.get(name, "")
    return Platform(ARCHITECTURES.get(name, name), variant)


def rank(machine: Platform, image: Platform) -> int:
    """How well an image fits; below zero: it does not run here."""
    if image.os != machine.os:
        return -1
    if image.architecture == machine.architecture == "arm":
        ours, theirs = _ARM.get(machine.variant, 7), _ARM.get(image.variant, 5)
        return theirs if theirs <= ours else -1
    if image.architecture != machine.architecture:
        return -1
    return 2 if image.variant in (machine.variant, "") else 1


def look(path: Path, machine: Platform) -> Plan:
    """What to do with the archive or layout. Blocks. Raises ArchiveError."""
    with _explained(path):
        return plan(_documents(path), machine, str(path), archive=path.is_file())


def plan(documents: Mapping[str, bytes], machine: Platform, name: str, *, archive: bool = True) -> Plan:
    """Decide from the JSON of an archive (pure). Raises ArchiveError."""
    if "index.json" in documents and "oci-layout" in documents:
        return _plan_oci(documents, machine, name, archive=archive)
    if "manifest.json" in documents and archive:
        return _plan_docker(documents, machine, name)
    raise ArchiveError(f"{name} is no image archive: neither index.json nor manifest.json is in it")


def _plan_docker(documents: Mapping[str, bytes], machine: Platform, name: str) -> Plan:
    skipped, fits = [], False
    for entry in json.loads(documents["manifest.json"]):
        found = _platform(json.loads(documents.get(_member(entry.get("Config") or ""), b"{}")), machine)
        if rank(machine, found) < 0:
            skipped.append(f"{', '.join(entry.get('RepoTags') or ['an image without a name'])} for {found}")
        else:
            fits = True
    if not fits:
        raise _nothing(name, machine, skipped)
    return Plan(whole=True)  # podman loads all of it; what is foreign does no harm


def _plan_oci(documents: Mapping[str, bytes], machine: Platform, name: str, *, archive: bool) -> Plan:
    index = json.loads(documents["index.json"])
    loads: list[Load] = []
    skipped: list[str] = []
    for names, group in _named(index.get("manifests") or (), _docker_names(documents)).items():
        leaves = [leaf for descriptor in group for leaf in _leaves(documents, descriptor, machine)]
        fitting = sorted((leaf for leaf in leaves if leaf[0] >= 0), key=lambda leaf: -leaf[0])
        if not fitting:
            others = ", ".join(dict.fromkeys(str(leaf[1]) for leaf in leaves if leaf[1].os != "unknown"))
            skipped.append(f"{', '.join(names) or 'an image without a name'} for {others or 'no platform at all'}")
        chosen = fitting if not names else fitting[:1]
        loads += [Load(names, descriptor, _blobs(documents, descriptor)) for _, _, descriptor in chosen]
    if not loads:
        raise _nothing(name, machine, skipped)
    loads = _merged(loads)
    only = index["manifests"][0]
    plain = len(index["manifests"]) == len(loads) == 1 and only.get("mediaType") not in _INDEXES and len(loads[0].names) <= 1
    named = not loads[0].names or (only.get("annotations") or {}).get(REF_NAME) == loads[0].names[0]
    return Plan(whole=True) if archive and plain and named else Plan(loads=tuple(loads), skipped=tuple(skipped))


def _merged(loads: Sequence[Load]) -> list[Load]:
    """One for each image, with all its names."""
    found: dict[str, Load] = {}
    for load in loads:
        known = found.get(load.descriptor["digest"])
        found[load.descriptor["digest"]] = (
            load if known is None else replace(known, names=tuple(dict.fromkeys((*known.names, *load.names))))
        )
    return list(found.values())


def _nothing(name: str, machine: Platform, skipped: Sequence[str]) -> ArchiveError:
    return ArchiveError(f"{name} has no image for this machine, which is {machine}: it has {'; '.join(skipped) or 'none at all'}")


def _named(manifests: Sequence[Mapping[str, Any]], docker: Mapping[str, tuple[str, ...]]) -> dict[tuple[str, ...], list[Mapping[str, Any]]]:
    """Descriptors by the names they give. The same image may be listed once for each of its names, and a name once for each platform."""
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for descriptor in manifests:
        notes = descriptor.get("annotations") or {}
        name = notes.get(CONTAINERD_NAME) or notes.get(REF_NAME) or ""
        alone = "/" not in name and ":" not in name  # a tag
        names = docker.get(descriptor.get("digest", ""), ()) if alone else (expand(name),)
        found.setdefault(names, []).append(descriptor)
    return found


def _docker_names(documents: Mapping[str, bytes]) -> dict[str, tuple[str, ...]]:
    """Digest of a manifest -> the names that docker's own list in the same archive gives to its config."""
    by_config = {
        _member(entry.get("Config") or ""): tuple(entry.get("RepoTags") or ())
        for entry in json.loads(documents.get("manifest.json", b"[]"))
    }
    found = {}
    for member, data in documents.items():
        if by_config and member.startswith("blobs/") and b'"config"' in data:
            config = json.loads(data).get("config")
            if isinstance(config, dict) and (names := by_config.get(_blob(config))):
                found[member.removeprefix("blobs/").replace("/", ":")] = names
    return found


def _leaves(
    documents: Mapping[str, bytes], descriptor: Mapping[str, Any], machine: Platform
) -> Iterator[tuple[int, Platform, Mapping[str, Any]]]:
    """The images below a descriptor: how well they fit, for what they are, where they are."""
    document = json.loads(documents.get(_blob(descriptor), b"{}"))
    if "manifests" in document or descriptor.get("mediaType") in _INDEXES:
        for entry in document.get("manifests") or ():
            yield from _leaves(documents, entry, machine)
        return
    stated = descriptor.get("platform")
    if stated is None:
        stated = json.loads(documents.get(_blob(document.get("config") or {}), b"{}"))
    found = _platform(stated, machine)
    yield (rank(machine, found) if document else -1), found, descriptor


def _platform(stated: Mapping[str, Any], machine: Platform) -> Platform:
    """An image that does not say for what it is, is taken to be for this machine."""
    return Platform(stated.get("architecture") or machine.architecture, stated.get("variant") or "", stated.get("os") or machine.os)


def _blobs(documents: Mapping[str, bytes], descriptor: Mapping[str, Any]) -> frozenset[str]:
    document = json.loads(documents[_blob(descriptor)])
    return frozenset((_blob(descriptor), _blob(document.get("config") or {}), *(_blob(layer) for layer in document.get("layers") or ())))


def _blob(descriptor: Mapping[str, Any]) -> str:
    return "blobs/" + str(descriptor.get("digest") or "").replace(":", "/")


def _member(name: str) -> str:
    return name.removeprefix("./")


# reading and writing


def repacked(path: Path, load: Load) -> Iterator[bytes]:
    """The bytes of an OCI archive that has `load` alone, under its first name. Raises ArchiveError."""
    descriptor = {**load.descriptor, "annotations": {REF_NAME: load.names[0]} if load.names else {}}
    index = json.dumps({"schemaVersion": 2, "manifests": [descriptor]}).encode()
    wanted = set(load.blobs)
    with _explained(path):
        for name, data in (("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", index)):
            yield from _packed(name, len(data), io.BytesIO(data))
        for name, size, blob in _members(path):
            if name in wanted:
                wanted.remove(name)
                yield from _packed(name, size, blob)
    if wanted:
        raise ArchiveError(f"{path} is not complete: it lacks {min(wanted)}")
    yield bytes(2 * tarfile.BLOCKSIZE)


def unpacked(path: Path) -> Iterator[bytes]:
    """The archive as it is but for its compression: Debian's podman 4.3 reads docker archives with zstd and not with gzip."""
    with _explained(path), opened(path) as stream:
        while data := stream.read(_CHUNK):
            yield data


def _packed(name: str, size: int, file: IO[bytes]) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.size = size
    yield info.tobuf(tarfile.PAX_FORMAT)
    while data := file.read(_CHUNK):
        yield data
    yield bytes(-size % tarfile.BLOCKSIZE)


def _documents(path: Path) -> dict[str, bytes]:
    """The JSON in it, by member."""
    found: dict[str, bytes] = {}
    room = _ALL_SMALL
    for name, size, file in _members(path):
        if size <= min(_SMALL, room) and (data := file.read()).lstrip()[:1] in (b"{", b"["):
            found[name] = data
            room -= size
    return found


def _members(path: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Regular files of an archive or a folder, in order: name, size, contents (to be read before the next one is asked for)."""
    if path.is_dir():
        for one in sorted(path.rglob("*")):
            if one.is_file():
                with one.open("rb") as file:
                    yield one.relative_to(path).as_posix(), one.stat().st_size, file
        return
    with opened(path) as stream:
        plain = isinstance(getattr(stream, "raw", None), io.FileIO)  # then what nobody wants is skipped, not read
        with tarfile.open(fileobj=stream, mode="r:" if plain else "r|") as tar:
            for member in tar:
                if member.isreg() and (inside := tar.extractfile(member)) is not None:
                    yield _member(member.name), member.size, inside
        while not plain and stream.read(_CHUNK):
            pass  # the checksum of a packed file comes last


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The archive unpacked, whatever it is packed with."""
    with path.open("rb") as raw:
        magic = raw.read(6)
        raw.seek(0)
        with _unpacked(raw, magic) as stream:
            yield stream


def _unpacked(raw: IO[bytes], magic: bytes) -> Any:
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(raw)
    if magic.startswith(zstd.MAGIC):
        return io.BufferedReader(zstd.ZstdReader(raw), _CHUNK)
    if magic.startswith(b"BZh"):
        return bz2.open(raw)
    if magic.startswith(b"\xfd7zXZ\x00"):
        return lzma.open(raw)
    return raw


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What is wrong with a file, in one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise ArchiveError(f"{error.filename or path}: no such file") from error
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error, zstd.Missing) as error:
        raise ArchiveError(f"{path} can not be read: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArchiveError(f"{path} is damaged: {error}") from error
