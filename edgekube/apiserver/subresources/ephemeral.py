"""pods/ephemeralcontainers: containers added to a running pod for debugging. They can be added, never changed or removed.

Reads and writes the pod; only spec.ephemeralContainers of what the client sends is looked at.
"""

from typing import TYPE_CHECKING

from edgekube.api import catalog, meta, problems
from edgekube.api.types import Obj
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.subresources.protocol import Change, Subresource
from edgekube.apiserver.verbs.metadata import check_revision
from edgekube.errors import Conflict, Invalid, Problem

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server

FIELD = "spec.ephemeralContainers"
_ATTEMPTS = 25


class EphemeralContainersSubresource(Subresource):
    """GET, PUT, PATCH pods/NAME/ephemeralcontainers."""

    name = "ephemeralcontainers"
    resources = ("pods",)
    schema = "io.k8s.api.core.v1.Pod"

    async def get(self, server: "Server", op: Operation) -> Obj:
        return server.registry.get(catalog.POD, op.namespace, op.name).decode()

    async def update(self, server: "Server", op: Operation, change: Change) -> Obj:
        for attempt in range(_ATTEMPTS):
            current = server.registry.latest(catalog.POD, op.namespace, op.name)
            wanted, old = change(current.decode()), current.decode()
            check_revision(op, wanted, old)
            new = current.decode()
            new["spec"]["ephemeralContainers"] = (wanted.get("spec") or {}).get("ephemeralContainers") or []
            catalog.POD.default(new)
            self._check(op, new, old)
            await server.admit(op, "UPDATE", new, old)
            if op.dry_run or new["spec"].get("ephemeralContainers") == (old["spec"].get("ephemeralContainers") or []):
                return new
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
            try:
                return (await server.registry.update(catalog.POD, new, current.revision)).decode()
            except Conflict:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    @staticmethod
    def _check(op: Operation, new: Obj, old: Obj) -> None:
        found = [*plan_problems(new, old), *(one for one in catalog.POD.validate(new, new) if one.field.startswith(FIELD))]
        if found:
            raise Invalid.of("", "Pod", op.name, found)


def plan_problems(new: Obj, old: Obj) -> list[Problem]:
    """What may not happen to those that are there."""
    now = {one.get("name"): one for one in new["spec"].get("ephemeralContainers") or ()}
    found = []
    if "kubernetes.io/config.mirror" in meta.annotations(new):
        found.append(problems.forbidden("", "static pods do not support ephemeral containers"))
    for one in old["spec"].get("ephemeralContainers") or ():
        name = one["name"]
        if name not in now:
            found.append(problems.forbidden(FIELD, f'existing ephemeral containers "{name}" may not be removed\n'))
        elif now[name] != one:
            found.append(problems.forbidden(FIELD, f'existing ephemeral containers "{name}" may not be changed\n'))
    return found
