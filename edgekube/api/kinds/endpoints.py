"""Endpoints."""

from edgekube.api.kind import Kind

ENDPOINTS = Kind(
    group="",
    version="v1",
    kind="Endpoints",
    plural="endpoints",
    singular="endpoints",
    short=("ep",),
    schema="io.k8s.api.core.v1.Endpoints",
)
