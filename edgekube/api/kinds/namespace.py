"""Namespace: phase, finalizers of its spec, and its name as a label."""

from edgekube.api.kind import Kind

NAMESPACE = Kind(
    group="",
    version="v1",
    kind="Namespace",
    plural="namespaces",
    singular="namespace",
    short=("ns",),
    namespaced=False,
    schema="io.k8s.api.core.v1.Namespace",
    has_status=True,
    subresources={"finalize": ("update",)},
    verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
)
