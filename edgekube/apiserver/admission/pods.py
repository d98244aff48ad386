"""Priority, DefaultTolerationSeconds and TaintNodesByCondition: small facts that pods and nodes get at creation."""

from edgekube.api import catalog
from edgekube.api.types import Obj
from edgekube.apiserver.admission.common import BasePlugin, forbidden, is_write_of
from edgekube.apiserver.admission.protocol import Admission
from edgekube.apiserver.objects import Objects

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
_TOLERATION_SECONDS = 300
_GROUP = "scheduling.k8s.io"


class Priority(BasePlugin):
    """plugin/pkg/admission/priority upstream: the class's number goes into the pod; only one class is the default."""

    name = "Priority"
    kinds = ("pods", "priorityclasses")

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def mutate(self, request: Admission) -> None:
        if not is_write_of(request, "pods") or request.obj is None:
            return
        spec = request.obj.setdefault("spec", {})
        if request.operation == "UPDATE" and request.old is not None:
            old = request.old.get("spec") or {}
            for field in ("priority", "preemptionPolicy"):
                if spec.get(field) is None and old.get(field) is not None:
                    spec[field] = old[field]
            return
        if request.operation == "CREATE":
            self._resolve(request, spec)

    async def validate(self, request: Admission) -> None:
        if not is_write_of(request, "priorityclasses", _GROUP) or request.obj is None or request.operation not in ("CREATE", "UPDATE"):
            return
        if request.obj.get("globalDefault"):
            default = self._default()
            if default is not None and default["metadata"]["name"] != request.obj["metadata"].get("name"):
                name = default["metadata"]["name"]
                raise forbidden(request, f"PriorityClass {name} is already marked as default. Only one default can exist")

    def _resolve(self, request: Admission, spec: Obj) -> None:
        name = spec.get("priorityClassName") or ""
        found: Obj | None
        if name:
            item = self._objects.get(catalog.PRIORITY_CLASS, name)
            if item is None:
                raise forbidden(request, f"no PriorityClass with name {name} was found")
            found = item.decode()
        else:
            found = self._default()
            if found is not None:
                spec["priorityClassName"] = found["metadata"]["name"]
        value = int((found or {}).get("value", 0))
        policy = (found or {}).get("preemptionPolicy") or "PreemptLowerPriority"
        given = spec.get("priority")
        if given is not None and given != value:
            why = (
                f"the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value}"
            )
            raise forbidden(request, f"{why} from the given PriorityClass name")
        given = spec.get("preemptionPolicy")
        if given is not None and given != policy:
            why = f"the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed"
            raise forbidden(request, f"{why} {policy} from the given PriorityClass name")
        spec["priority"], spec["preemptionPolicy"] = value, policy

    def _default(self) -> Obj | None:
        """The default class; of several, the lowest."""
        classes = (item.decode() for item in self._objects.items(catalog.PRIORITY_CLASS))
        return min((one for one in classes if one.get("globalDefault")), key=lambda one: int(one.get("value", 0)), default=None)


class DefaultTolerationSeconds(BasePlugin):
    """Pods stay five minutes on a node that is not ready or unreachable, unless they say otherwise."""

    name = "DefaultTolerationSeconds"
    kinds = ("pods",)

    async def mutate(self, request: Admission) -> None:
        if not is_write_of(request, "pods") or request.obj is None or request.operation not in ("CREATE", "UPDATE"):
            return
        spec = request.obj.setdefault("spec", {})
        tolerations = list(spec.get("tolerations") or ())
        missing = [key for key in (NOT_READY, UNREACHABLE) if not any(_tolerates(one, key) for one in tolerations)]
        if missing:
            spec["tolerations"] = tolerations + [
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _TOLERATION_SECONDS} for key in missing
            ]


class TaintNodesByCondition(BasePlugin):
    """A new node takes no pods until its kubelet has said that it is ready."""

    name = "TaintNodesByCondition"
    kinds = ("nodes",)

    async def mutate(self, request: Admission) -> None:
        if request.operation != "CREATE" or not is_write_of(request, "nodes") or request.obj is None:
            return
        spec = request.obj.setdefault("spec", {})
        taints = list(spec.get("taints") or ())
        if not any(taint.get("key") == NOT_READY and taint.get("effect") == "NoSchedule" for taint in taints):
            spec["taints"] = [*taints, {"key": NOT_READY, "effect": "NoSchedule"}]


def _tolerates(toleration: Obj, key: str) -> bool:
    return (toleration.get("key") or key) == key and (toleration.get("effect") or "NoExecute") == "NoExecute"
