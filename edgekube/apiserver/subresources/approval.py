"""certificatesigningrequests/approval: the conditions that say whether a certificate is granted, and nothing else of the request."""

from typing import TYPE_CHECKING

from edgekube.api.types import Obj
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.subresources.protocol import Change, Subresource

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server


class ApprovalSubresource(Subresource):
    """GET, PUT, PATCH certificatesigningrequests/NAME/approval."""

    name = "approval"
    resources = ("certificatesigningrequests.certificates.k8s.io",)

    async def get(self, server: "Server", op: Operation) -> Obj:
        return server.registry.get(op.kind, op.namespace, op.name).decode()

    async def update(self, server: "Server", op: Operation, change: Change) -> Obj:
        from edgekube.apiserver.verbs.update import update

        return (await update(server, op, change)).decode()
