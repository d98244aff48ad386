"""ServiceAccount (pkg/registry/core/serviceaccount/strategy.go)."""

from edgekube.api.kind import Column, Kind
from edgekube.api.kinds.printing import AGE, NAME

SERVICE_ACCOUNT = Kind(
    group="",
    version="v1",
    kind="ServiceAccount",
    plural="serviceaccounts",
    singular="serviceaccount",
    short=("sa",),
    schema="io.k8s.api.core.v1.ServiceAccount",
    subresources={"token": ("create",)},
    columns=(NAME, Column("Secrets", lambda o, _: len(o.get("secrets") or ()), description="Secrets the account may use."), AGE),
)
