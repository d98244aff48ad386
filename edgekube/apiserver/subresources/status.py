"""status: what controllers and kubelets observed, written apart from what is wanted."""

from typing import TYPE_CHECKING

from edgekube.api.types import Obj
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.subresources.protocol import Change, Subresource

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server


class StatusSubresource(Subresource):
    """Of every kind that has a status."""

    name = "status"

    async def get(self, server: "Server", op: Operation) -> Obj:
        return server.registry.get(op.kind, op.namespace, op.name).decode()

    async def update(self, server: "Server", op: Operation, change: Change) -> Obj:
        from edgekube.apiserver.verbs.update import update

        return (await update(server, op, change)).decode()
