"""PriorityClass."""

from edgekube.api.kind import Kind

PRIORITY_CLASS = Kind(
    group="scheduling.k8s.io",
    version="v1",
    kind="PriorityClass",
    plural="priorityclasses",
    singular="priorityclass",
    short=("pc",),
    namespaced=False,
    schema="io.k8s.api.scheduling.v1.PriorityClass",
    has_generation=True,
)
