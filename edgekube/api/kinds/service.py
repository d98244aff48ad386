"""Service."""

from edgekube.api.kind import Kind

SERVICE = Kind(
    group="",
    version="v1",
    kind="Service",
    plural="services",
    singular="service",
    short=("svc",),
    categories=("all",),
    schema="io.k8s.api.core.v1.Service",
    has_status=True,
    subresources={"proxy": ("create", "delete", "get", "patch", "update")},
)
