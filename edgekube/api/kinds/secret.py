"""Secret."""

from edgekube.api.kind import Kind

SECRET = Kind(
    group="",
    version="v1",
    kind="Secret",
    plural="secrets",
    singular="secret",
    schema="io.k8s.api.core.v1.Secret",
)
