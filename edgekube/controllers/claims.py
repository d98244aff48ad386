"""Whose is it: adopt what matches the selector and has no controller, release what is ours and does not match.

Source of the rules: pkg/controller/controller_ref_manager.go.

`plan_claims` decides, `Claimer` acts. Adoption asks the API server first whether the owner still is there and not being deleted, since a
cache may be behind a deletion with orphaning.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgekube.api import meta
from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.types import Obj
from edgekube.client.cache import Cache, Matcher
from edgekube.client.protocol import Client, PatchType
from edgekube.errors import Conflict, Invalid, NotFound

ORPHANS = "orphans"


@dataclass(frozen=True, slots=True)
class Claims:
    """`kept` are ours already; `adopted` shall become ours, `released` shall not be any more."""

    kept: Sequence[Item]
    adopted: Sequence[Item]
    released: Sequence[Item]


def plan_claims(*, owner_deleting: bool, selector: Matcher, owned: Iterable[Item], orphans: Iterable[Item]) -> Claims:
    """A deleted owner keeps what matches and touches nothing; nothing that is being deleted changes hands."""
    kept: list[Item] = []
    released: list[Item] = []
    for item in owned:
        if selector.matches(item.labels):
            kept.append(item)
        elif not owner_deleting:
            released.append(item)
    adopted = [item for item in orphans if not owner_deleting and not item.deleting and selector.matches(item.labels)]
    return Claims(kept, adopted, released)


def index_orphans(cache: Cache, kind: Kind) -> None:
    """Let `Claimer` find what has no controller."""
    cache.add_index(kind, ORPHANS, lambda item: () if item.controller else (item.namespace,))


class Claimer:
    """Claims objects of `child` for owners of `parent`."""

    def __init__(self, client: Client, cache: Cache, parent: Kind, child: Kind) -> None:
        self._client, self._cache, self._parent, self._child = client, cache, parent, child
        index_orphans(cache, child)

    async def claim(self, owner: Obj, selector: Matcher) -> Sequence[Item]:
        """The children that are the owner's after adopting and releasing. Adopted ones come as the cache has them."""
        about = owner["metadata"]
        plan = plan_claims(
            owner_deleting=meta.is_deleting(owner),
            selector=selector,
            owned=self._cache.owned(self._child, about["uid"]),
            orphans=self._cache.by_index(self._child, ORPHANS, about["namespace"]),
        )
        if plan.adopted:
            await self._check_owner(owner)
            await asyncio.gather(*(self._adopt(owner, item) for item in plan.adopted))
        if plan.released:
            await asyncio.gather(*(self._release(owner, item) for item in plan.released))
        return [*plan.kept, *plan.adopted]

    async def _check_owner(self, owner: Obj) -> None:
        about = owner["metadata"]
        fresh = await self._client.get(self._parent, about["name"], about["namespace"])
        if fresh["metadata"]["uid"] != about["uid"] or meta.is_deleting(fresh):
            why = f"original {self._parent.kind} {about['namespace']}/{about['name']} is gone: it may not adopt"
            raise Conflict.of(self._parent.group, self._parent.plural, about["name"], why)

    async def _adopt(self, owner: Obj, item: Item) -> None:
        reference = meta.owner_reference(owner, self._parent, controller=True, block=True)
        await self._patch(item, {"metadata": {"ownerReferences": [reference], "uid": item.uid}})

    async def _release(self, owner: Obj, item: Item) -> None:
        gone = {"$patch": "delete", "uid": owner["metadata"]["uid"]}
        try:
            await self._patch(item, {"metadata": {"ownerReferences": [gone], "uid": item.uid}})
        except (NotFound, Invalid, Conflict):
            return  # it is gone, or somebody else's: not ours either way

    async def _patch(self, item: Item, patch: Obj) -> None:
        await self._client.patch(self._child, item.name, item.namespace, patch, patch_type=PatchType.STRATEGIC)
