"""pods/eviction: a delete that asks first. Without disruption budgets there is nobody to ask; preconditions and grace are the caller's.

Deletes the pod through the delete verb, so that grace, finalizers and admission are the same.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from edgekube.api.types import Obj
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.subresources.protocol import Subresource
from edgekube.apiserver.verbs.delete import DeleteOptions, delete
from edgekube.errors import BadRequest

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server


class EvictionSubresource(Subresource):
    """POST pods/NAME/eviction with a policy/v1 Eviction."""

    name = "eviction"
    resources = ("pods",)
    schema = "io.k8s.api.policy.v1.Eviction"

    async def create(self, server: "Server", op: Operation, obj: Obj) -> Obj:
        metadata, options = obj.get("metadata") or {}, obj.get("deleteOptions") or {}
        if metadata.get("name") and metadata["name"] != op.name:
            raise BadRequest("name in URL does not match name in Eviction object")
        dry = bool(options.get("dryRun"))
        if options.get("dryRun") not in (None, [], ["All"]):
            raise BadRequest(f"Non-matching dry-run options in request and content: [] and {options['dryRun']}")
        await server.admit(op, "CREATE", obj, None)
        await delete(server, replace(op, subresource="", dry_run=op.dry_run or dry), DeleteOptions.of(options))
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
