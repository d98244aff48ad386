"""Lease: who leads, who lives. Its writes live in memory (pkg/registry/coordination/lease)."""

from edgekube.api.kind import Column, Kind
from edgekube.api.kinds.printing import AGE, NAME

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
    columns=(
        NAME,
        Column("Holder", lambda o, _: (o.get("spec") or {}).get("holderIdentity") or "", description="Who holds the lease."),
        AGE,
    ),
)
