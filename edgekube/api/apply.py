"""Field management: server-side apply, and keeping track of who changed what in every other write.

    track_update(kind, old, new, manager=..., now=...)   after a create, update or any patch but apply: returns `new` with managedFields
    apply_patch(kind, live, config, manager=..., force=..., now=...)   the object that applying `config` makes of `live`

Pure and copy-on-write: arguments are never changed, and what is equal is shared. Follows k8s.io/apimachinery/pkg/util/managedfields
and sigs.k8s.io/structured-merge-diff/merge.
"""

from collections.abc import Iterable
from typing import Any

import orjson

from edgekube.api import fieldset, managers, ownership, walk
from edgekube.api.fields import Struct
from edgekube.api.fieldset import Set
from edgekube.api.kind import Kind
from edgekube.api.managers import Managed, Manager
from edgekube.api.schema import SCHEMA
from edgekube.api.types import Obj
from edgekube.errors import BadRequest, Conflict, Unclassified

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_BEFORE_FIRST_APPLY = "before-first-apply"
_KUBECTL = "kubectl"
# Nobody manages what the server itself writes.
_SYSTEM: Set = {
    "f:apiVersion": {},
    "f:kind": {},
    "f:metadata": {
        ".": {}, "f:name": {}, "f:namespace": {}, "f:creationTimestamp": {}, "f:selfLink": {}, "f:uid": {}, "f:clusterName": {},
        "f:generation": {}, "f:managedFields": {}, "f:resourceVersion": {},
    },
}  # fmt: skip
_SYSTEM_METADATA = frozenset(element[2:] for element in _SYSTEM["f:metadata"] if element != ".")
_EMPTY = Struct("", {})


def track_update(kind: Kind, old: Obj | None, new: Obj, *, manager: str, now: str, subresource: str = "") -> Obj:
    """`new` with the managedFields it must be stored with. `old` is None for a create.

    `new` is what will be stored (after defaults, admission and prepare), `now` the time as RFC 3339. A request may hand in
    managedFields of its own: [{}] forgets all managers, other entries replace the stored ones (not through a subresource).
    """
    given, stored = managers.entries_of(new), managers.entries_of(old)
    if old is not None and (given == stored or not given) and _content(old) == _content(new):
        return new if given else _with_entries(new, list(stored))
    if old is not None and not subresource and managers.is_reset(given):
        managed = Managed()
    elif old is not None and (subresource or not given or given == stored):
        managed = managers.decode(stored)
    else:
        managed = managers.decode(given) if given else Managed()
        managed = managed if managed.sets or old is None else managers.decode(stored)
    if old is not None and not managed.sets:
        return _with_entries(new, [])  # never tracked, and an update does not begin to
    struct = _struct(kind)
    difference = ownership.compare(struct, _content(ownership.skeleton(struct) if old is None else old), _content(new))
    changed, removed = _managed_part(difference.changed), _managed_part(difference.removed)
    _record(managed, managers.updater(manager, kind.api_version, subresource), changed, removed, kind.api_version, now)
    managed.cap()
    return _with_entries(new, managed.encode())


def apply_patch(kind: Kind, live: Obj | None, config: Obj, *, manager: str, force: bool, now: str, subresource: str = "") -> Obj:
    """The object after `manager` applied `config` to `live` (None: there is none yet), with managedFields.

    It must go through decoding.clean_patched like any patch result. If nothing changes the result equals `live`.
    Raises BadRequest, Conflict with a FieldManagerConflict cause per field, Unclassified if `config` does not fit the types.
    """
    struct = _struct(kind)
    _check(kind, struct, config)
    managed = managers.decode(managers.entries_of(live))
    base = ownership.skeleton(struct) if live is None else _bare(live)
    if not managed.sets and live is not None:
        found = ownership.compare(struct, _content(ownership.skeleton(struct)), _content(live))
        before = managers.updater(_BEFORE_FIRST_APPLY, kind.api_version, "")
        _record(managed, before, _managed_part(found.changed), {}, kind.api_version, now)
    me = managers.applier(manager, subresource)
    merged, changed = _apply(kind, struct, base, config, managed, me, force=force)
    if changed:
        managed.times[me] = now
        managed.cap()
    result = _with_entries(merged if changed or live is None else base, managed.encode())
    return _synced_annotation(result, config) if manager == _KUBECTL else result


def _apply(kind: Kind, struct: Struct, base: Obj, config: Obj, managed: Managed, me: Manager, *, force: bool) -> tuple[Obj, bool]:
    """(the merged object, whether it differs from `base`); `managed` is brought up to date."""
    merged = ownership.merge(struct, base, config)
    last = managed.sets.get(me, {})
    fields = _applicable(kind, ownership.field_set(struct, config), me.subresource)
    managed.put(me, fields, kind.api_version)
    merged = _pruned(struct, merged, managed, last)
    managed.put(me, fieldset.difference(fields, _SYSTEM), kind.api_version)
    difference = ownership.compare(struct, _content(base), _content(merged))
    changed, removed = _managed_part(difference.changed), _managed_part(difference.removed)
    if not force:
        conflicts = _conflicts(managed, me, changed)
        if conflicts and me.name == _KUBECTL:
            conflicts = _not_last_applied(struct, base, conflicts)
        if conflicts:
            raise _conflict(conflicts)
    managed.drop(changed, but=me)
    managed.drop(removed, but=me)
    return merged, not difference.same


def _pruned(struct: Struct, merged: Obj, managed: Managed, last: Set) -> Obj:
    """Without what this manager applied before, applies no more, and nobody else manages."""
    if not last:
        return merged
    whole = ownership.with_parents(struct, ownership.field_set(struct, merged))
    mine = ownership.with_parents(struct, last)
    gone = ownership.remove(struct, merged, mine)
    left = ownership.with_parents(struct, ownership.field_set(struct, gone))
    owned: Set = {}
    for fields in managed.sets.values():
        owned = fieldset.union(owned, fields)
    owned = fieldset.union(left, ownership.with_parents(struct, owned))
    kept = ownership.remove(struct, merged, fieldset.difference(whole, owned))
    left = ownership.with_parents(struct, ownership.field_set(struct, kept))
    return ownership.remove(struct, merged, fieldset.intersection(fieldset.difference(whole, left), mine))


def _record(managed: Managed, me: Manager, changed: Set, removed: Set, version: str, now: str) -> None:
    """Somebody changed these fields by an update: they are theirs now, and nobody else's."""
    before = managed.sets.get(me, {})
    managed.drop(changed, but=me)
    managed.drop(removed)
    fields = fieldset.union(fieldset.difference(before, removed), changed)
    if changed:
        managed.times[me] = now
    managed.put(me, fields, version)


def _conflicts(managed: Managed, me: Manager, changed: Set) -> list[tuple[Manager, Set]]:
    found = ((manager, fieldset.intersection(fields, changed)) for manager, fields in sorted(managed.sets.items()) if manager != me)
    return [(manager, fields) for manager, fields in found if fields]


def _not_last_applied(struct: Struct, live: Obj, conflicts: Iterable[tuple[Manager, Set]]) -> list[tuple[Manager, Set]]:
    """kubectl takes over silently what its own client-side apply wrote and nobody changed since."""
    text = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
    try:
        applied = orjson.loads(text) if text else None
    except ValueError:
        applied = None
    if not isinstance(applied, dict):
        return list(conflicts)
    theirs = ownership.field_set(struct, applied)
    changed_since = ownership.compare(struct, applied, live)
    allowed = fieldset.difference(theirs, fieldset.union(changed_since.changed, changed_since.removed))
    rest = ((manager, fieldset.difference(fields, allowed)) for manager, fields in conflicts)
    return [(manager, fields) for manager, fields in rest if fields]


def _conflict(conflicts: list[tuple[Manager, Set]]) -> Conflict:
    paths = [(manager, fieldset.path_text(path)) for manager, fields in conflicts for path in fieldset.members(fields)]
    causes = [{"reason": "FieldManagerConflict", "message": f"conflict with {manager}", "field": path} for manager, path in paths]
    if len(paths) == 1:
        text = f"Apply failed with 1 conflict: conflict with {paths[0][0]}: {paths[0][1]}"
    else:
        lines: list[str] = []
        for manager in sorted({manager for manager, _ in paths}):
            lines.append(f"conflicts with {manager}:")
            lines += [f"- {path}" for other, path in paths if other == manager]
        text = f"Apply failed with {len(paths)} conflicts: " + "\n".join(lines)
    return Conflict(text, details={"causes": causes})


def _check(kind: Kind, struct: Struct, config: Obj) -> None:
    metadata = config.get("metadata") or {}
    if metadata.get("managedFields") is not None:
        raise BadRequest("metadata.managedFields must be nil")
    version = config.get("apiVersion", "")
    if version != kind.api_version:
        raise BadRequest(f"Incorrect version specified in apply patch. Specified version: {version}, expected: {kind.api_version}")
    found = walk.check(struct, orjson.loads(orjson.dumps(config)))
    faults = [f".{path}: field not declared in schema" for path in found.unknown]
    faults += [found.error] if found.error else []
    if faults:
        namespace, name = metadata.get("namespace", ""), metadata.get("name", "")
        target = f"{namespace}/{name}" if namespace else f"/{name}"
        shown = faults[0] if len(faults) == 1 else "errors:\n" + "\n".join(f"  {fault}" for fault in faults)
        raise Unclassified(f"failed to create typed patch object ({target}; {kind.group}/{kind.version}, Kind={kind.kind}): {shown}")


def _applicable(kind: Kind, fields: Set, subresource: str) -> Set:
    """What applying through this (sub)resource can own: the main resource does not write status, status writes nothing else."""
    if subresource == "status":
        return _without(fields, "f:spec")
    return _without(fields, "f:status") if kind.has_status else fields


def _without(fields: Set, element: str) -> Set:
    return {name: node for name, node in fields.items() if name != element}


def _content(obj: Obj) -> Obj:
    """What somebody can manage: without type, and without the metadata that the server writes."""
    content = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata")}
    content["metadata"] = {key: value for key, value in (obj.get("metadata") or {}).items() if key not in _SYSTEM_METADATA}
    return content


def _managed_part(fields: Set) -> Set:
    metadata = fields.get("f:metadata")
    if metadata is None or "." not in metadata:
        return fields if metadata is None or metadata else _without(fields, "f:metadata")
    rest = _without(metadata, ".")
    return {**fields, "f:metadata": rest} if rest else _without(fields, "f:metadata")


def _bare(obj: Obj) -> Obj:
    """`obj` without managedFields."""
    return {**obj, "metadata": {key: value for key, value in (obj.get("metadata") or {}).items() if key != "managedFields"}}


def _with_entries(obj: Obj, entries: list[Any]) -> Obj:
    bare = _bare(obj)
    if entries:
        bare["metadata"]["managedFields"] = entries
    return bare


def _synced_annotation(obj: Obj, config: Obj) -> Obj:
    """kubectl's server-side apply keeps the annotation of its client-side apply up to date where there is one."""
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    if LAST_APPLIED not in annotations:
        return obj
    bare = _without_last_applied(config)
    text = orjson.dumps(bare, option=orjson.OPT_SORT_KEYS).decode() + "\n"
    return {**obj, "metadata": {**obj["metadata"], "annotations": {**annotations, LAST_APPLIED: text}}}


def _without_last_applied(config: Obj) -> Obj:
    metadata = config.get("metadata") or {}
    annotations = metadata.get("annotations")
    if not annotations or LAST_APPLIED not in annotations:
        return config
    rest = {key: value for key, value in annotations.items() if key != LAST_APPLIED}
    return {**config, "metadata": {**metadata, "annotations": rest}}


def _struct(kind: Kind) -> Struct:
    return SCHEMA.struct(kind.schema) or _EMPTY
