"""metadata.managedFields: who manages which fields, read and written as upstream does.

A manager is known by name, operation, apiVersion (updates only) and subresource. Its fields are a fieldset.Set, which is exactly the
stored fieldsV1, so reading and writing entries costs next to nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from edgekube.api import fieldset
from edgekube.api.fieldset import Set
from edgekube.api.types import Obj

MAX_UPDATERS = 10
_ANCIENT = "ancient-changes"
_APPLY, _UPDATE = "Apply", "Update"


class Manager(NamedTuple):
    """The identity of an entry; an applier is one manager whatever version it applies."""

    name: str
    operation: str
    version: str
    subresource: str

    def __str__(self) -> str:
        """As conflicts name it."""
        shown = f'"{self.name}"' if not self.subresource else f'"{self.name}" with subresource "{self.subresource}"'
        return f"{shown} using {self.version}" if self.operation == _UPDATE else shown


def applier(name: str, subresource: str) -> Manager:
    return Manager(name, _APPLY, "", subresource)


def updater(name: str, version: str, subresource: str) -> Manager:
    return Manager(name, _UPDATE, version, subresource)


class Managed:
    """The entries of one object: fields, versions and times by manager. Sets are shared, never changed in place."""

    __slots__ = ("sets", "times", "versions")

    def __init__(self) -> None:
        self.sets: dict[Manager, Set] = {}
        self.times: dict[Manager, str] = {}
        self.versions: dict[Manager, str] = {}

    def put(self, manager: Manager, fields: Set, version: str) -> None:
        """Set a manager's fields; one without fields is forgotten."""
        if fields:
            self.sets[manager], self.versions[manager] = fields, version
        else:
            self.sets.pop(manager, None)

    def drop(self, gone: Set, *, but: Manager | None = None) -> None:
        """Take `gone` from everybody else."""
        for manager, fields in list(self.sets.items()):
            if manager != but:
                rest = fieldset.difference(fields, gone)
                if rest is not fields:
                    self.put(manager, rest, self.versions[manager])

    def cap(self) -> None:
        """Fold the oldest updaters of each version into one, so that an object does not grow with the number of its writers."""
        updaters = [manager for manager in self.sets if manager.operation == _UPDATE]
        if len(updaters) <= MAX_UPDATERS:
            return
        updaters.sort(key=lambda manager: (self.times.get(manager, ""), manager))
        count = len(updaters)
        buckets: dict[str, Manager] = {}
        for manager in updaters:
            if count <= MAX_UPDATERS:
                return
            bucket = buckets.setdefault(manager.version, Manager(_ANCIENT, _UPDATE, manager.version, ""))
            if bucket == manager:
                continue
            fresh = bucket not in self.sets
            merged = fieldset.union(self.sets.get(bucket, {}), self.sets.pop(manager))
            self.put(bucket, merged, manager.version)
            self.times[bucket] = max(self.times.get(bucket, ""), self.times.get(manager, ""))
            count -= 0 if fresh else 1

    def encode(self) -> list[Obj]:
        """The entries in upstream's order: appliers first, then by time and name."""
        ordered = sorted(self.sets, key=lambda m: (m.operation, self.times.get(m, ""), m.name, self.versions[m], m.subresource))
        return [self._entry(manager) for manager in ordered]

    def _entry(self, manager: Manager) -> Obj:
        entry: Obj = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": self.versions[manager],
            "time": self.times.get(manager),
            "fieldsType": "FieldsV1",
            "fieldsV1": self.sets[manager],
            "subresource": manager.subresource,
        }
        return {name: value for name, value in entry.items() if value}


def decode(entries: Iterable[Any]) -> Managed:
    """The entries of an object. One that makes no sense spoils them all, as upstream has it: then nobody manages anything."""
    managed = Managed()
    for entry in entries:
        operation, fields = entry.get("operation"), entry.get("fieldsV1")
        if operation not in (_APPLY, _UPDATE) or entry.get("fieldsType", "FieldsV1") != "FieldsV1" or fields.__class__ is not dict:
            return Managed()
        version = entry.get("apiVersion", "")
        known = version if operation == _UPDATE else ""
        manager = Manager(entry.get("manager", ""), operation, known, entry.get("subresource", ""))
        managed.put(manager, fieldset.union(managed.sets.get(manager, {}), fields), version)
        if entry.get("time"):
            managed.times[manager] = entry["time"]
    return managed


def entries_of(obj: Obj | None) -> Sequence[Any]:
    """The stored entries of `obj`."""
    found: Sequence[Any] = ((obj or {}).get("metadata") or {}).get("managedFields") or ()
    return found


def is_reset(entries: Sequence[Any]) -> bool:
    """`managedFields: [{}]`: a client asks to forget all managers."""
    return len(entries) == 1 and not entries[0]
