"""Reading the folder: every file with its objects, or with what is wrong with it. Reads files only; applies and remembers nothing."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from edgekube.api.catalog import find_kind
from edgekube.api.decoding import STRICT, clean
from edgekube.api.types import Obj
from edgekube.errors import BadRequest
from edgekube.lib.files import still_written

SUFFIXES = (".yaml", ".yml", ".json")
STATIC = "static"  # the kubelet's
LIMIT = 10 << 20


class Ref(NamedTuple):
    """Which object; versions of a kind are the same."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class File:
    """One file as it is now. With a `problem` it declares nothing new."""

    sha256: str
    objects: Mapping[Ref, Obj] = field(default_factory=dict)
    problem: str = ""
    busy: bool = False  # somebody still writes to it
    text: str = ""  # of one with a problem


class Unreadable(Exception):
    """What is wrong with a file."""


def folders(root: Path) -> Iterator[Path]:
    """The folder and those below it that may hold manifests. Raises OSError: what can not be seen must not count as gone."""
    for folder, below, _ in os.walk(root, onerror=_raise):
        below[:] = sorted(name for name in below if name[0] != "." and not (name == STATIC and Path(folder) == root))
        yield Path(folder)


def _raise(error: OSError) -> None:
    raise error


def read_folder(root: Path, known: Mapping[str, File]) -> dict[str, File]:
    """By path below `root`. `known`: as they were last time; a file with the same bytes is not parsed again."""
    found: dict[str, File] = {}
    for folder in folders(root):
        for path in sorted(folder.iterdir()):
            if path.suffix in SUFFIXES and path.name[0] != "." and path.is_file():
                name = path.relative_to(root).as_posix()
                found[name] = _read(path, known.get(name))
    return found


def _read(path: Path, known: File | None) -> File:
    if still_written(path):
        return File(sha256="", busy=True)
    try:
        if path.stat().st_size > LIMIT:
            return File(sha256="large", problem=f"the file is larger than {LIMIT} bytes")
        data = path.read_bytes()
    except OSError as error:
        return File(sha256="unreadable", problem=f"the file can not be read: {error.strerror}")
    digest = hashlib.sha256(data).hexdigest()
    if known is not None and known.sha256 == digest:
        return known
    try:
        return File(digest, parse(data))
    except Unreadable as error:
        return File(digest, problem=str(error), text=data.decode(errors="replace"))


def parse(data: bytes) -> dict[Ref, Obj]:
    """The objects of a file, in order. Raises Unreadable."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        documents = list(yaml.load_all(data, Loader=loader))  # a safe loader, in C where there is one
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # also a date that is none
        raise Unreadable(f"it is not YAML: {' '.join(str(error).split())}") from error
    found: dict[Ref, Obj] = {}
    for number, document in enumerate(documents, start=1):
        for obj in _items(document, number):
            ref, checked = _checked(obj, number)
            if ref in found:
                raise Unreadable(f"document {number}: {ref} is in the file twice")
            found[ref] = checked
    return found


def _items(document: Any, number: int) -> Iterator[Any]:
    """An object, or those of a List."""
    if document is None:
        return
    if not isinstance(document, dict):
        raise Unreadable(f"document {number} is no object")
    if str(document.get("kind") or "").endswith("List") and isinstance(document.get("items"), list):
        yield from document["items"]
    else:
        yield document


def _checked(obj: Any, number: int) -> tuple[Ref, Obj]:
    try:
        plain: Obj = orjson.loads(orjson.dumps(obj))
    except (TypeError, orjson.JSONEncodeError) as error:
        raise Unreadable(f"document {number}: {error}") from error
    metadata = plain.get("metadata") if isinstance(plain, dict) else None
    if not isinstance(metadata, dict) or not plain.get("kind") or not plain.get("apiVersion"):
        raise Unreadable(f"document {number}: an object needs apiVersion, kind and metadata")
    if not metadata.get("name") or not isinstance(metadata["name"], str):
        raise Unreadable(f"document {number}: {plain['kind']} has no metadata.name")
    for name in ("labels", "annotations"):
        if not isinstance(metadata.get(name) or {}, dict):
            raise Unreadable(f"document {number}: metadata.{name} of {plain['kind']} {metadata['name']} is no mapping")
    kind = find_kind(str(plain["apiVersion"]), str(plain["kind"]))
    if kind is not None:
        if kind.namespaced:
            metadata["namespace"] = metadata.get("namespace") or "default"
        else:
            metadata.pop("namespace", None)
        try:
            clean(kind, orjson.loads(orjson.dumps(plain)), mode=STRICT)
        except BadRequest as error:
            raise Unreadable(f"document {number}, {plain['kind']} {metadata['name']}: {error.message}") from error
    for name in ("managedFields", "resourceVersion", "uid", "creationTimestamp"):
        metadata.pop(name, None)
    group = str(plain["apiVersion"]).rpartition("/")[0]
    return Ref(group, str(plain["kind"]), str(metadata.get("namespace") or ""), metadata["name"]), plain
