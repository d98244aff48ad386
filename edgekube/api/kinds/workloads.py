"""What Deployments and ReplicaSets share: replica counts, selectors of the scale subresource, what spec and status updates keep."""

from edgekube.api import selectors
from edgekube.api.kind import Column, Scale
from edgekube.api.kinds import printing
from edgekube.api.types import Obj


def scale_selector(obj: Obj) -> str:
    """The selector as text, for autoscalers."""
    return str(selectors.from_label_selector((obj.get("spec") or {}).get("selector")))


SCALE = Scale(selector=scale_selector)


def prepare(obj: Obj, old: Obj | None) -> None:
    """The status belongs to the controller."""
    obj["status"] = {} if old is None else old.get("status") or {}


def prepare_status(obj: Obj, old: Obj | None) -> None:
    """A status update changes nothing else."""
    if old is not None:
        obj["spec"] = old["spec"]
        labels = old["metadata"].get("labels")
        obj["metadata"].pop("labels", None)
        if labels:
            obj["metadata"]["labels"] = labels  # annotations travel with the status: the controller's revision is one


def _template(obj: Obj) -> Obj:
    found: Obj = (obj.get("spec") or {}).get("template") or {}
    return found


def _selector(obj: Obj, _now: float) -> str:
    return printing.selector((obj.get("spec") or {}).get("selector"))


CONTAINERS = Column("Containers", lambda o, _: printing.containers(_template(o))[0], priority=1, description="Names of the containers.")
IMAGES = Column("Images", lambda o, _: printing.containers(_template(o))[1], priority=1, description="Images of the containers.")
SELECTOR = Column("Selector", _selector, priority=1, description="Label selector for pods.")
