"""What a subresource is. The server is given the list of them; `status` and `scale` come with it.

Those that take and return objects (status, scale, binding, eviction, token) override get, create or update: the HTTP side and the
in-process client call the same method; PATCH is an update. Those that are conversations (log, exec, attach, portforward, proxy) override
`connect`. Authentication and authorization have passed; admission is the subresource's own call (`server.admit`).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgekube.api.types import Obj
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.request import AnyResponse, Request
from edgekube.errors import MethodNotAllowed

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server

Change = Callable[[Obj], Obj]
"""What an update wants: the new object from the current one (for PUT it ignores its argument). May run again after a conflict."""


class Subresource:
    """`resources` are the group-qualified plurals it belongs to (`pods`, `deployments.apps`); empty: every kind that declares it."""

    name: str = ""
    resources: Sequence[str] = ()
    schema: str = ""  # definition of the body, for strategic merge patches; "": the parent's

    async def get(self, server: "Server", op: Operation) -> Obj:
        raise MethodNotAllowed

    async def create(self, server: "Server", op: Operation, obj: Obj) -> Obj:
        raise MethodNotAllowed

    async def update(self, server: "Server", op: Operation, change: Change) -> Obj:
        raise MethodNotAllowed

    async def connect(self, server: "Server", op: Operation, request: Request) -> AnyResponse:
        """Only called where `streams` is set; any method."""
        raise MethodNotAllowed

    streams: bool = False
