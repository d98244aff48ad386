"""Lease."""

from edgekube.api.kind import Kind

LEASE = Kind(
    group="coordination.k8s.io",
    version="v1",
    kind="Lease",
    plural="leases",
    singular="lease",
    schema="io.k8s.api.coordination.v1.Lease",
    ephemeral=True,
    allow_create_on_update=True,
    unconditional_update=False,
)
