"""NodeLoss: whether a pod is fenced (api.nodeloss) is fixed when it is made. Both sides rely on it while they can not talk."""

from edgekube.api import nodeloss
from edgekube.apiserver.admission.common import BasePlugin, forbidden
from edgekube.apiserver.admission.protocol import Admission


class NodeLoss(BasePlugin):
    """Where the cluster's policy is `fenced`, pods that say nothing get the annotation."""

    name = "NodeLoss"
    kinds = ("pods",)

    def __init__(self, policy: str) -> None:
        self._policy = policy

    async def mutate(self, request: Admission) -> None:
        if request.operation != "CREATE" or request.subresource or request.obj is None or self._policy != nodeloss.FENCED:
            return
        tolerations = (request.obj.get("spec") or {}).get("tolerations") or ()
        if not nodeloss.choice(request.obj) and not any(map(nodeloss.has_chosen, tolerations)):
            about = request.obj["metadata"]
            about["annotations"] = {**(about.get("annotations") or {}), nodeloss.ANNOTATION: nodeloss.FENCED}

    async def validate(self, request: Admission) -> None:
        if request.operation != "UPDATE" or request.obj is None or request.old is None or "spec" not in request.obj:
            return
        if nodeloss.fenced(request.obj) != nodeloss.fenced(request.old):
            raise forbidden(request, f"annotation {nodeloss.ANNOTATION}: a pod can not become or cease to be fenced; make a new one")
