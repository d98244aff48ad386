"""Garbage collector: delete what has lost its owners, in the background, in the foreground, or not at all (orphan).

Reads all kinds through the shared cache, by the uids that Items carry; decodes only what it is about to change. Writes: deletes objects,
drops owner references and the finalizers `foregroundDeletion` and `orphan`; Events. Promises: nothing is deleted before the API server
itself said that the owner is not there, and only the version that was judged.
"""

import asyncio
import logging
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from edgekube.api.catalog import find_kind
from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.types import Key, Obj
from edgekube.client.protocol import PatchType
from edgekube.client.recorder import WARNING, reference
from edgekube.controllers.base import DONE, Base, Maps, Owns, Result
from edgekube.controllers.ownership import FOREGROUND_FINALIZER, ORPHAN_FINALIZER, Fate, Owner, blocks, plan_fate
from edgekube.errors import NotFound

log = logging.getLogger(__name__)

_FOREGROUND_MARK, _ORPHAN_MARK = f'"{FOREGROUND_FINALIZER}"'.encode(), f'"{ORPHAN_FINALIZER}"'.encode()


class Ref(NamedTuple):
    """One object of its time: another of the same name has another uid."""

    kind: Kind
    key: Key
    uid: str

    def __str__(self) -> str:
        return f"{self.kind.plural}/{self.key}"


class GarbageCollector(Base):
    name = "generic-garbage-collector"
    workers = 8

    def watches(self) -> Sequence[Owns | Maps]:
        return tuple(Maps(kind, partial(self._of_change, kind)) for kind in self.cache.kinds)

    # the graph

    def _of_change(self, kind: Kind, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        if new is None:
            if old is not None:
                yield from self._dependents(old.uid)
                yield from self._waiting_owners(old.owners)
            return
        mine = Ref(kind, new.key, new.uid)
        if old is None or old.owners != new.owners:
            if new.owners:
                yield mine
            if old is not None:
                yield from self._waiting_owners(set(old.owners) - set(new.owners))
        if new.deleting and (_FOREGROUND_MARK in new.raw or _ORPHAN_MARK in new.raw):
            yield mine
            if _FOREGROUND_MARK in new.raw and (old is None or not old.deleting):
                yield from self._dependents(new.uid)
        elif old is not None and old.owners and old.revision != new.revision:
            # A reference may have stopped blocking its owner.
            yield from self._waiting_owners(new.owners)

    def _dependents(self, uid: str) -> Iterator[Ref]:
        for kind in self.cache.kinds:
            for item in self.cache.dependents(kind, uid):
                yield Ref(kind, item.key, item.uid)

    def _waiting_owners(self, uids: Iterable[str]) -> Iterator[Ref]:
        for uid in uids:
            found = self._find(uid)
            if found is not None and is_waiting(found[1]):
                yield Ref(found[0], found[1].key, uid)

    def _find(self, uid: str) -> tuple[Kind, Item] | None:
        for kind in self.cache.kinds:
            item = self.cache.by_uid(kind, uid)
            if item is not None:
                return kind, item
        return None

    # the work

    async def reconcile(self, ref: Ref) -> Result:
        item = self.cache.get(ref.kind, ref.key)
        if item is None or item.uid != ref.uid:
            return DONE
        if item.deleting:
            if _ORPHAN_MARK in item.raw and has_finalizer(item, ORPHAN_FINALIZER):
                await self._orphan(ref)
            elif is_waiting(item) and not self._is_blocked(item.uid):
                await self._drop_finalizer(ref, FOREGROUND_FINALIZER)
            return DONE
        if item.owners and not self._owners_stay(item):
            await self._judge(ref)
        return DONE

    def _owners_stay(self, item: Item) -> bool:
        """Whether the cache alone shows that nothing is to be done."""
        for uid in item.owners:
            found = self._find(uid)
            if found is None or found[1].namespace not in ("", item.namespace) or is_waiting(found[1]):
                return False
        return True

    async def _judge(self, ref: Ref) -> None:
        try:
            obj = await self.client.get(ref.kind, ref.key.name, ref.key.namespace)
        except NotFound:
            return
        about = obj["metadata"]
        if about["uid"] != ref.uid or "deletionTimestamp" in about:
            return
        owners = {owner["uid"]: await self._state(ref, obj, owner) for owner in about.get("ownerReferences") or ()}
        dependents = [found for kind in self.cache.kinds for found in self.cache.dependents(kind, ref.uid)]
        fate = plan_fate(
            owners,
            has_dependents=bool(dependents),
            in_circle=any(is_waiting(dependent) for dependent in dependents),
            finalizers=about.get("finalizers") or (),
        )
        await self._carry_out(ref, obj, fate)

    async def _state(self, ref: Ref, obj: Obj, owner: Obj) -> Owner:
        kind = find_kind(owner["apiVersion"], owner["kind"])
        if kind is None or (kind.namespaced and not ref.kind.namespaced):
            return Owner.SOLID  # nobody can tell that it is not there
        found = self._find(owner["uid"])
        if found is not None and found[0].namespaced and found[1].namespace != ref.key.namespace:
            self._report_namespace(ref, obj, owner)
        namespace = ref.key.namespace if kind.namespaced else ""
        try:
            current = await self.client.get(kind, owner["name"], namespace)
        except NotFound:
            return Owner.DANGLING
        about = current["metadata"]
        if about["uid"] != owner["uid"]:
            return Owner.DANGLING
        waiting = "deletionTimestamp" in about and FOREGROUND_FINALIZER in (about.get("finalizers") or ())
        return Owner.WAITING if waiting else Owner.SOLID

    def _report_namespace(self, ref: Ref, obj: Obj, owner: Obj) -> None:
        where = ref.key.namespace
        what = f"[{owner['apiVersion']}/{owner['kind']}, namespace: {where}, name: {owner['name']}, uid: {owner['uid']}]"
        text = f'ownerRef {what} does not exist in namespace "{where}"'
        self.events.event(reference(obj, ref.kind), WARNING, "OwnerRefInvalidNamespace", text)

    async def _carry_out(self, ref: Ref, obj: Obj, fate: Fate) -> None:
        if fate.drop:
            await self._drop_owners(ref, fate.drop)
        if fate.unblock:
            owners = [{"uid": owner["uid"], "blockOwnerDeletion": False} for owner in obj["metadata"]["ownerReferences"]]
            obj = await self._patch(ref, {"metadata": {"uid": ref.uid, "ownerReferences": owners}})
        if fate.policy:
            name, namespace = ref.key.name, ref.key.namespace
            revision = obj["metadata"]["resourceVersion"]
            try:
                await self.client.delete(ref.kind, name, namespace, propagation=fate.policy, uid=ref.uid, revision=revision)
            except NotFound:
                return
            log.info("garbage deleted", extra={"object": str(ref), "policy": fate.policy})

    async def _drop_owners(self, ref: Ref, uids: Iterable[str]) -> None:
        gone = [{"$patch": "delete", "uid": uid} for uid in uids]
        await self._patch(ref, {"metadata": {"uid": ref.uid, "ownerReferences": gone}})

    async def _patch(self, ref: Ref, patch: Obj) -> Obj:
        return await self.client.patch(ref.kind, ref.key.name, ref.key.namespace, patch, patch_type=PatchType.STRATEGIC)

    async def _orphan(self, ref: Ref) -> None:
        """The dependents first: a crash in between leaves the finalizer, and the second run what is left to do."""

        async def let_go(dependent: Ref) -> None:
            try:
                await self._drop_owners(dependent, (ref.uid,))
            except NotFound:
                return

        await asyncio.gather(*map(let_go, self._dependents(ref.uid)))
        await self._drop_finalizer(ref, ORPHAN_FINALIZER)

    def _is_blocked(self, uid: str) -> bool:
        return any(blocks(item.decode(), uid) for kind in self.cache.kinds for item in self.cache.dependents(kind, uid))

    async def _drop_finalizer(self, ref: Ref, finalizer: str) -> None:
        try:
            obj = await self.client.get(ref.kind, ref.key.name, ref.key.namespace)
            about = obj["metadata"]
            current = about.get("finalizers") or []
            if about["uid"] != ref.uid or finalizer not in current:
                return
            kept = [name for name in current if name != finalizer]
            patch = {"metadata": {"resourceVersion": about["resourceVersion"], "finalizers": kept}}
            await self.client.patch(ref.kind, ref.key.name, ref.key.namespace, patch, patch_type=PatchType.MERGE)
        except NotFound:
            return


def has_finalizer(item: Item, finalizer: str) -> bool:
    return finalizer in (item.decode()["metadata"].get("finalizers") or ())


def is_waiting(item: Item) -> bool:
    """Being deleted in the foreground: it goes when its dependents have."""
    return item.deleting and _FOREGROUND_MARK in item.raw and has_finalizer(item, FOREGROUND_FINALIZER)
