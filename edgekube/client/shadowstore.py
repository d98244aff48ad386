"""What a node remembers: pictures of sources (see remembered.py) and small notes, in memory and, encrypted, on disk.

Reads and writes one file through lib.sealed. Items are shared with the caches that were given them: memory holds each version once; what
came from the disk stays bytes until somebody asks. Promises: a change that matters to this node's pods is durable about half a second
later, other changes are gathered and written every 30 s at most in the long run, heartbeats never; nothing is written when nothing
changed. A file that can not be read is put aside with one warning: the node then knows nothing until it sees its server.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from edgekube.api import meta
from edgekube.api.catalog import CONFIG_MAP, ENDPOINT_SLICE, POD, SECRET
from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.podrefs import references
from edgekube.api.types import Key
from edgekube.client.keeper import Keeper, Pace
from edgekube.client.reflector import Source
from edgekube.client.remembered import PINNED, Rule, Weight, by_name, members, rule_for, weigh_change
from edgekube.lib.sealed import Damaged, SealedLog

log = logging.getLogger(__name__)

_MARK, _OBJECT, _NOTE = "s\0", "o\0", "n\0"
_POD_NOTES = "pod/"


@dataclass(slots=True)
class Picture:
    """One source as last seen."""

    source: Source
    rule: Rule
    revision: int = 0
    found: dict[Key, Item | bytes] = field(default_factory=dict)
    users: int = 0  # watches that keep it current

    def raw(self, key: Key) -> bytes | None:
        known = self.found.get(key)
        return known.raw if isinstance(known, Item) else known

    def item(self, key: Key) -> Item | None:
        known = self.found.get(key)
        if isinstance(known, bytes):
            obj = orjson.loads(known)
            known = meta.item_of(self.source.kind, known, int(obj["metadata"].get("resourceVersion") or 0), obj)
            self.found[key] = known
        return known

    def items(self) -> list[Item]:
        return [item for key in sorted(self.found) if (item := self.item(key)) is not None]


def source_id(source: Source) -> str:
    return "|".join((source.kind.bucket, source.namespace, source.labels, source.fields))


class ShadowStore:
    """`open` it, keep `run` running, close by cancelling that: what waits is written then."""

    name = "remembered-state"

    def __init__(self, *, file: SealedLog, pace: Pace | None = None) -> None:
        self._file = file
        self._pictures: dict[str, Picture] = {}
        self._loaded: dict[str, dict[Key, Item | bytes]] = {}  # of sources nobody has asked for yet
        self._notes: dict[str, bytes] = {}
        self._keeper = Keeper(file=file, pace=pace or Pace(), value=self._value, before=self._drop_unused)
        self._pods_changed = False
        self.flush = self._keeper.flush
        self.run = self._keeper.run
        self.hurry = self._keeper.hurry

    async def open(self) -> None:
        """Read what is there. Never raises: a node that remembers nothing still works."""
        records: Mapping[str, bytes] = {}
        try:
            records = await asyncio.to_thread(self._file.load)
            if self._file.torn:
                log.warning("the newest part of the remembered state was torn; going on with what was before")
        except (Damaged, OSError, ValueError) as error:
            log.warning("the remembered state can not be read; starting without it", extra={"error": str(error)})
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._file.discard)
        for name, value in records.items():
            self._take(name, value)
        self._keeper.known(records)

    def _take(self, record: str, value: bytes) -> None:
        if record.startswith(_NOTE):
            self._notes[record.removeprefix(_NOTE)] = value
            return
        _, source, *rest = record.split("\0")
        found = self._loaded.setdefault(source, {})
        if rest:
            namespace, _, name = rest[0].partition("/")
            found[Key(namespace, name)] = value

    # pictures

    def picture(self, source: Source) -> Picture | None:
        """How `source` looked when it was last seen; None: it never was."""
        found = self._pictures.get(source_id(source))
        if found is None and (loaded := self._loaded.pop(source_id(source), None)) is not None:
            rule = rule_for(source)
            if rule is not None:
                found = self._pictures[source_id(source)] = Picture(source, rule, found=loaded)
        return found

    def find(self, kind: Kind, key: Key) -> Item | None:
        """The object, wherever it was seen."""
        for name in [name for name in self._loaded if name.startswith(f"{kind.bucket}|")]:
            self._adopt(kind, name)
        for picture in self._pictures.values():
            if picture.source.kind == kind and (item := picture.item(key)) is not None:
                return item
        return None

    def _adopt(self, kind: Kind, name: str) -> None:
        _, namespace, labels, fields = name.split("|", 3)
        self.picture(Source(kind, namespace, labels, fields))

    def items(self, kind: Kind) -> list[Item]:
        """All that is known of a kind, once for each source that has it."""
        for name in [name for name in self._loaded if name.startswith(f"{kind.bucket}|")]:
            self._adopt(kind, name)
        return [item for picture in self._pictures.values() if picture.source.kind == kind for item in picture.items()]

    def intern(self, source: Source, item: Item) -> Item:
        """The same version as it is known already, if it is: caches then share its bytes."""
        picture = self.picture(source)
        known = None if picture is None else picture.found.get(item.key)
        if isinstance(known, Item) and known.revision == item.revision and known.uid == item.uid and known.raw == item.raw:
            return known
        return item

    def replace(self, rule: Rule, source: Source, items: Mapping[Key, Item], revision: int) -> None:
        """The server's whole answer: what it does not have is gone."""
        picture = self.picture(source)
        if picture is None:
            picture = self._pictures[source_id(source)] = Picture(source, rule)
            self._keeper.dirty(_mark_of(source), rule.first)
        for key in [key for key in picture.found if key not in items]:
            self._set(picture, key, None)
        for key, item in items.items():
            self._set(picture, key, item)
        picture.revision = revision

    def change(self, source: Source, key: Key, item: Item | None, revision: int) -> None:
        """One event of a watch; what the picture has seen already changes nothing."""
        picture = self._pictures.get(source_id(source))
        if picture is None or revision <= picture.revision:
            return
        picture.revision = revision
        known = picture.found.get(key)
        if key.name and not (item is not None and isinstance(known, Item) and _newer(known, item)):
            self._set(picture, key, item)

    def learn(self, kind: Kind, item: Item) -> None:
        """A version that the server has answered to our own write: its event may come too late to be remembered."""
        for picture in self._pictures.values():
            if picture.source.kind == kind and (known := picture.item(item.key)) is not None and _newer(item, known):
                self._set(picture, item.key, item)

    def _set(self, picture: Picture, key: Key, item: Item | None) -> None:
        old = picture.raw(key)
        if item is None:
            picture.found.pop(key, None)
        else:
            picture.found[key] = item
        new = None if item is None else item.raw
        weight = weigh_change(picture.rule, old, new)
        if weight is Weight.LATER and picture.source.kind == ENDPOINT_SLICE:
            mine = {pod.uid for pod in self.items(POD)}
            if members(old, mine) != members(new, mine):
                weight = Weight.SOON  # our own pods: alone, their Services hang on it
        if weight is not Weight.NOTHING:
            self._keeper.dirty(_name_of(picture.source, key), weight)
            self._pods_changed = self._pods_changed or picture.source.kind == POD

    def forget(self, source: Source) -> None:
        picture = self._pictures.pop(source_id(source), None)
        if picture is not None:
            self._keeper.dirty(_mark_of(source), Weight.SOON)
            for key in picture.found:
                self._keeper.dirty(_name_of(source, key), Weight.SOON)

    # notes

    def note(self, name: str) -> bytes | None:
        """What was noted under `name`. Notes named `pod/<uid>/...` end with the pod."""
        return self._notes.get(name)

    def set_note(self, name: str, value: bytes | None) -> None:
        """Durable soon. None takes it away."""
        if self._notes.get(name) == value:
            return
        if value is None:
            self._notes.pop(name, None)
        else:
            self._notes[name] = value
        self._keeper.dirty(_NOTE + name, Weight.SOON)

    # what nobody needs any more

    def _drop_unused(self) -> None:
        """Objects no pod refers to, notes of pods that are gone. Only a server's answer may have made it so."""
        if not self._pods_changed:
            return
        self._pods_changed = False
        items = [item for picture in self._pictures.values() if picture.source.kind == POD for item in picture.items()]
        wanted = PINNED.union(*(references(item.decode()) for item in items))
        for kind in (CONFIG_MAP, SECRET):
            for name in [name for name in self._loaded if name.startswith(f"{kind.bucket}|")]:
                self._adopt(kind, name)
        for picture in list(self._pictures.values()):
            source, name = picture.source, by_name(picture.source)
            if source.namespace and name and not picture.users and (source.kind, Key(source.namespace, name)) not in wanted:
                self.forget(source)
        uids = {item.uid for item in items}
        for name in [name for name in self._notes if name.startswith(_POD_NOTES) and name.split("/")[1] not in uids]:
            self.set_note(name, None)

    # for the disk

    def _value(self, record: str) -> bytes | None:
        """What is to be on disk under this name."""
        if record.startswith(_NOTE):
            return self._notes.get(record.removeprefix(_NOTE))
        _, source, *rest = record.split("\0")
        picture, loaded = self._pictures.get(source), self._loaded.get(source)
        if not rest:
            return b"" if picture is not None or loaded is not None else None
        namespace, _, name = rest[0].partition("/")
        if picture is not None:
            return picture.raw(Key(namespace, name))
        known = (loaded or {}).get(Key(namespace, name))
        return known if isinstance(known, bytes) else None


def _newer(one: Item, other: Item) -> bool:
    """Of the same object."""
    return one.uid == other.uid and one.revision > other.revision


def _mark_of(source: Source) -> str:
    return f"{_MARK}{source_id(source)}"


def _name_of(source: Source, key: Key) -> str:
    return f"{_OBJECT}{source_id(source)}\0{key.namespace}/{key.name}"
