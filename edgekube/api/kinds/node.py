"""Node."""

from edgekube.api.kind import Kind

NODE = Kind(
    group="",
    version="v1",
    kind="Node",
    plural="nodes",
    singular="node",
    short=("no",),
    namespaced=False,
    schema="io.k8s.api.core.v1.Node",
    has_status=True,
    subresources={"proxy": ("create", "delete", "get", "patch", "update")},
)
