"""Pod: names, subresources and the functions of its sibling files."""

from edgekube.api.kind import Kind

POD = Kind(
    group="",
    version="v1",
    kind="Pod",
    plural="pods",
    singular="pod",
    short=("po",),
    categories=("all",),
    schema="io.k8s.api.core.v1.Pod",
    has_status=True,
    has_generation=True,
    subresources={
        "attach": ("create", "get"),
        "binding": ("create",),
        "ephemeralcontainers": ("get", "patch", "update"),
        "eviction": ("create",),
        "exec": ("create", "get"),
        "log": ("get",),
        "portforward": ("create", "get"),
        "proxy": ("create", "delete", "get", "patch", "update"),
        "resize": ("get", "patch", "update"),
    },
)
