"""deletecollection: delete what a list with the same selectors finds, a few at a time."""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from edgekube.api.item import Item
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.verbs.delete import DeleteOptions, delete
from edgekube.apiserver.verbs.listing import Listing, ListOptions, list_items
from edgekube.errors import NotFound

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server

_AT_ONCE = 20  # group commit makes one sync of these


async def delete_collection(server: "Server", op: Operation, options: ListOptions, deletion: DeleteOptions) -> Listing:
    """What was found, as it was found. Whoever deletes one of them first does not matter."""
    found = await list_items(server, op, options)

    async def remove(item: Item) -> None:
        try:
            await delete(server, replace(op, name=item.name, namespace=item.namespace, warnings=[]), deletion)
        except NotFound:
            return

    for start in range(0, len(found.items), _AT_ONCE):
        await asyncio.gather(*(remove(item) for item in found.items[start : start + _AT_ONCE]))
    return found
