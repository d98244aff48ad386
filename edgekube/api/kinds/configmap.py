"""ConfigMap (pkg/registry/core/configmap/strategy.go)."""

from edgekube.api.kind import Column, Kind
from edgekube.api.kinds.printing import AGE, NAME

CONFIG_MAP = Kind(
    group="",
    version="v1",
    kind="ConfigMap",
    plural="configmaps",
    singular="configmap",
    short=("cm",),
    schema="io.k8s.api.core.v1.ConfigMap",
    columns=(
        NAME,
        Column("Data", lambda o, _: len(o.get("data") or ()) + len(o.get("binaryData") or ()), description="Number of entries."),
        AGE,
    ),
)
