"""ReplicaSet."""

from edgekube.api.kind import Kind, Scale

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
    scale=Scale(),
)
