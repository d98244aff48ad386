"""Secret: `stringData` is taken into `data`, the type is Opaque unless said (pkg/apis/core/v1/conversion.go, defaults.go)."""

import base64

from edgekube.api.kind import Column, Kind
from edgekube.api.kinds.printing import AGE, NAME
from edgekube.api.types import Obj


def default(obj: Obj) -> None:
    plain = obj.pop("stringData", None)
    if isinstance(plain, dict) and plain:
        data = obj["data"] = dict(obj.get("data") or {})
        for key, text in plain.items():
            data[key] = base64.b64encode(str(text).encode()).decode()
    if not obj.get("type"):
        obj["type"] = "Opaque"


SECRET = Kind(
    group="",
    version="v1",
    kind="Secret",
    plural="secrets",
    singular="secret",
    schema="io.k8s.api.core.v1.Secret",
    default=default,
    selectable={"type": lambda o: str(o.get("type") or "")},
    columns=(
        NAME,
        Column("Type", lambda o, _: o.get("type", ""), description="Used to facilitate programmatic handling of secret data."),
        Column("Data", lambda o, _: len(o.get("data") or ()), description="Number of entries."),
        AGE,
    ),
)
