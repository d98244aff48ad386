"""namespaces/finalize: the one way to take a name out of a namespace's spec.finalizers; the last one lets the namespace go."""

from typing import TYPE_CHECKING

from edgekube.api.types import Obj
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.subresources.protocol import Change, Subresource

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server


class FinalizeSubresource(Subresource):
    """Only spec.finalizers of the body counts."""

    name = "finalize"
    resources = ("namespaces",)

    async def update(self, server: "Server", op: Operation, change: Change) -> Obj:
        from edgekube.apiserver.verbs.update import update

        return (await update(server, op, change)).decode()
