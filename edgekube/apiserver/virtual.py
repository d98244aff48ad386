"""Kinds that are answered, not stored: access reviews and their like. They have an address and a schema; the only verb is create."""

from typing import TYPE_CHECKING, Protocol

from edgekube.api.kind import Kind
from edgekube.api.types import Obj
from edgekube.apiserver.operation import Operation

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server


class Virtual(Protocol):
    """`kind` must not be in the catalog; its `verbs` are ("create",)."""

    kind: Kind

    async def create(self, server: "Server", op: Operation, obj: Obj) -> Obj:
        """`obj` has passed the schema; the result is the whole answer (201)."""
