"""pods/binding: the scheduler's word. Sets spec.nodeName once, the condition PodScheduled, and the node's topology labels.

Reads the pod and the node, writes the pod. A pod that has a node keeps it: a second binding is a Conflict.
"""

from typing import TYPE_CHECKING

from edgekube.api import catalog, meta, problems
from edgekube.api.kind import Kind
from edgekube.api.types import Obj
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.subresources.protocol import Subresource
from edgekube.errors import BadRequest, Conflict, Invalid
from edgekube.lib.clock import rfc3339

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server

BINDING = Kind(
    group="",
    version="v1",
    kind="Binding",
    plural="bindings",
    singular="binding",
    schema="io.k8s.api.core.v1.Binding",
    verbs=("create",),
)
_TOPOLOGY = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")


class BindingSubresource(Subresource):
    """POST pods/NAME/binding."""

    name = "binding"
    resources = ("pods",)
    schema = BINDING.schema

    async def create(self, server: "Server", op: Operation, obj: Obj) -> Obj:
        metadata = obj.setdefault("metadata", {})
        if metadata.get("name") and metadata["name"] != op.name:
            raise BadRequest("name in URL does not match name in Binding object")
        return await bind(server, op, op.name, obj)


class Bindings:
    """POST bindings: the old address of the same thing (satisfies virtual.Virtual)."""

    kind = BINDING

    async def create(self, server: "Server", op: Operation, obj: Obj) -> Obj:
        return await bind(server, op, str((obj.get("metadata") or {}).get("name") or ""), obj)


async def bind(server: "Server", op: Operation, name: str, binding: Obj) -> Obj:
    """Validate, admit, assign."""
    target = binding.get("target") or {}
    found = []
    if target.get("kind") not in (None, "", "Node"):
        found.append(problems.not_supported("target.kind", target["kind"], ("Node", "<empty>")))
    if not target.get("name"):
        found.append(problems.required("target.name"))
    if found:
        raise Invalid.of("", "Binding", name, found)
    await server.admit(op, "CREATE", binding, None)
    node = server.registry.find(catalog.NODE, "", target["name"])
    labels = {key: node.labels[key] for key in _TOPOLOGY if key in node.labels} if node is not None else {}
    now = rfc3339(server.clock.now())
    if not op.dry_run:
        await server.registry.change(catalog.POD, op.namespace, name, lambda pod: assign(pod, binding, labels=labels, now=now))
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def assign(pod: Obj, binding: Obj, *, labels: dict[str, str], now: str) -> Obj:
    """The pod on its node. Raises Conflict in upstream's words."""
    metadata, spec, wanted = pod["metadata"], pod["spec"], binding.get("metadata") or {}
    name = metadata["name"]
    for field, title in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        if wanted.get(field) and wanted[field] != metadata.get(field):
            why = f"Precondition failed: {title} in precondition: {wanted[field]}, {title} in object meta: {metadata.get(field)}"
            raise Conflict.of("", "pods/binding", name, why)
    why = ""
    if metadata.get("deletionTimestamp"):
        why = f"pod {name} is being deleted, cannot be assigned to a host"
    elif spec.get("nodeName"):
        why = f'pod {name} is already assigned to node "{spec["nodeName"]}"'
    elif spec.get("schedulingGates"):
        why = f"pod {name} has non-empty .spec.schedulingGates"
    if why:
        raise Conflict.of("", "pods/binding", name, why)
    spec["nodeName"] = binding["target"]["name"]
    if wanted.get("annotations"):
        metadata["annotations"] = (metadata.get("annotations") or {}) | wanted["annotations"]
    if labels or wanted.get("labels"):
        metadata["labels"] = labels | (metadata.get("labels") or {}) | (wanted.get("labels") or {})
    meta.set_condition(pod, type="PodScheduled", status="True", reason="", message="", now=now)
    return pod
