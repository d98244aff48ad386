"""ConfigMap (pkg/registry/core/configmap/strategy.go, pkg/apis/core/validation ValidateConfigMap)."""

from collections.abc import Iterator

from edgekube.api import problems
from edgekube.api.kind import Column, Kind
from edgekube.api.kinds import bags
from edgekube.api.kinds.printing import AGE, NAME
from edgekube.api.types import Obj
from edgekube.errors import Problem


def validate(new: Obj, old: Obj | None) -> Iterator[Problem]:
    if old is not None:
        yield from bags.frozen(new, old, "data", "binaryData")
    data, binary = new.get("data") or {}, new.get("binaryData") or {}
    yield from bags.keys("data", data)
    for key in data:
        if key in binary:
            yield problems.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
    yield from bags.keys("binaryData", binary)
    size = sum(len(text.encode()) for text in data.values()) + bags.decoded_size(binary)
    if size > bags.LARGEST:
        yield problems.too_long("[]", bags.LARGEST)  # the object as a whole, as Go prints an empty path


CONFIG_MAP = Kind(
    group="",
    version="v1",
    kind="ConfigMap",
    plural="configmaps",
    singular="configmap",
    short=("cm",),
    schema="io.k8s.api.core.v1.ConfigMap",
    validate=validate,
    columns=(
        NAME,
        Column("Data", lambda o, _: len(o.get("data") or ()) + len(o.get("binaryData") or ()), description="Number of entries."),
        AGE,
    ),
)
