"""NamespaceLifecycle: nothing is created in a namespace that does not exist or is going away, and three namespaces stay for ever."""

from edgekube.api import catalog
from edgekube.apiserver.admission.common import BasePlugin, forbidden
from edgekube.apiserver.admission.protocol import Admission
from edgekube.apiserver.objects import Objects
from edgekube.errors import NotFound

_IMMORTAL = frozenset(("default", "kube-system", "kube-public"))
_REVIEWS = frozenset(("localsubjectaccessreviews",))


class NamespaceLifecycle(BasePlugin):
    """plugin/namespace/lifecycle upstream."""

    name = "NamespaceLifecycle"

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def mutate(self, request: Admission) -> None:
        """Runs first, so that no later plugin works for a write that cannot be."""
        kind = request.kind
        if kind.plural == "namespaces" and not kind.group:
            if request.operation == "DELETE" and request.name in _IMMORTAL:
                raise forbidden(request, "this namespace may not be deleted")
            return
        if not request.namespace or request.operation == "DELETE" or kind.plural in _REVIEWS:
            return
        namespace = self._objects.get(catalog.NAMESPACE, request.namespace)
        if namespace is None:
            raise NotFound.of("", "namespaces", request.namespace)
        if request.operation == "CREATE" and namespace.deleting:
            why = f"unable to create new content in namespace {request.namespace} because it is being terminated"
            error = forbidden(request, why)
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {request.namespace} is being terminated",
                "field": "metadata.namespace",
            }
            error.details = (error.details or {}) | {"causes": [cause]}
            raise error

    async def validate(self, request: Admission) -> None:
        """Deletes pass only this hook in the verbs; the rule for them is the same."""
        if request.operation == "DELETE":
            await self.mutate(request)
