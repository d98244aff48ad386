"""Deployment."""

from edgekube.api.kind import Kind, Scale

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
    scale=Scale(),
)
