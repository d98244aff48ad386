"""ConfigMap."""

from edgekube.api.kind import Kind

CONFIG_MAP = Kind(
    group="",
    version="v1",
    kind="ConfigMap",
    plural="configmaps",
    singular="configmap",
    short=("cm",),
    schema="io.k8s.api.core.v1.ConfigMap",
)
