"""Deployment (pkg/apis/apps/v1/defaults.go, pkg/registry/apps/deployment/strategy.go)."""

from edgekube.api.kind import Column, Kind
from edgekube.api.kinds import workloads
from edgekube.api.kinds.pod_defaults import default_template
from edgekube.api.kinds.printing import AGE, NAME
from edgekube.api.kinds.workload_validation import validate_deployment, validate_deployment_status
from edgekube.api.types import Obj


def default(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    for name, value in (("replicas", 1), ("revisionHistoryLimit", 10), ("progressDeadlineSeconds", 600)):
        if spec.get(name) is None:
            spec[name] = value
    strategy = spec.setdefault("strategy", {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.get("rollingUpdate")
        if rolling is None:
            rolling = strategy["rollingUpdate"] = {}
        for name in ("maxUnavailable", "maxSurge"):
            if rolling.get(name) is None:
                rolling[name] = "25%"
    if spec.get("template") is not None:
        default_template(spec["template"])


def _ready(obj: Obj, _now: float) -> str:
    return f"{(obj.get('status') or {}).get('readyReplicas', 0)}/{(obj.get('spec') or {}).get('replicas', 0)}"


DEPLOYMENT = Kind(
    group="apps",
    version="v1",
    kind="Deployment",
    plural="deployments",
    singular="deployment",
    short=("deploy",),
    categories=("all",),
    schema="io.k8s.api.apps.v1.Deployment",
    has_status=True,
    has_generation=True,
    scale=workloads.SCALE,
    default=default,
    prepare=workloads.prepare,
    prepare_status=workloads.prepare_status,
    validate=validate_deployment,
    validate_status=validate_deployment_status,
    columns=(
        NAME,
        Column("Ready", _ready, description="Number of the pod with ready state"),
        Column("Up-to-date", lambda o, _: (o.get("status") or {}).get("updatedReplicas", 0), "integer"),
        Column("Available", lambda o, _: (o.get("status") or {}).get("availableReplicas", 0), "integer"),
        AGE,
        workloads.CONTAINERS,
        workloads.IMAGES,
        workloads.SELECTOR,
    ),
)
