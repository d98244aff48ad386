"""ReplicaSet (pkg/apis/apps/v1/defaults.go, pkg/registry/apps/replicaset/strategy.go)."""

from edgekube.api.kind import Column, Kind
from edgekube.api.kinds import workloads
from edgekube.api.kinds.pod_defaults import default_template
from edgekube.api.kinds.printing import AGE, NAME
from edgekube.api.kinds.workload_validation import validate_replica_set, validate_replica_set_status
from edgekube.api.types import Obj


def default(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    if spec.get("replicas") is None:
        spec["replicas"] = 1
    if spec.get("template") is not None:
        default_template(spec["template"])


REPLICA_SET = Kind(
    group="apps",
    version="v1",
    kind="ReplicaSet",
    plural="replicasets",
    singular="replicaset",
    short=("rs",),
    categories=("all",),
    schema="io.k8s.api.apps.v1.ReplicaSet",
    has_status=True,
    has_generation=True,
    scale=workloads.SCALE,
    default=default,
    prepare=workloads.prepare,
    prepare_status=workloads.prepare_status,
    validate=validate_replica_set,
    validate_status=validate_replica_set_status,
    selectable={
        "status.replicas": lambda o: str((o.get("status") or {}).get("replicas", 0)),
    },
    columns=(
        NAME,
        Column("Desired", lambda o, _: (o.get("spec") or {}).get("replicas", 0), "integer"),
        Column("Current", lambda o, _: (o.get("status") or {}).get("replicas", 0), "integer"),
        Column("Ready", lambda o, _: (o.get("status") or {}).get("readyReplicas", 0), "integer"),
        AGE,
        workloads.CONTAINERS,
        workloads.IMAGES,
        workloads.SELECTOR,
    ),
)
