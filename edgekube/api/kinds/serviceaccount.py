"""ServiceAccount (pkg/registry/core/serviceaccount/strategy.go)."""

from edgekube.api.kind import Kind
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
    columns=(NAME, AGE),
)
