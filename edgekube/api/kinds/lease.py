"""Lease: who leads, who lives. Its writes live in memory (pkg/registry/coordination/lease)."""

from collections.abc import Iterator

from edgekube.api import problems
from edgekube.api import validate as rules
from edgekube.api.kind import Column, Kind
from edgekube.api.kinds.printing import AGE, NAME
from edgekube.api.types import Obj
from edgekube.errors import Problem

_STRATEGIES = ("OldestEmulationVersion",)


def validate(new: Obj, _old: Obj | None) -> Iterator[Problem]:
    spec = new.get("spec") or {}
    duration, strategy = spec.get("leaseDurationSeconds"), spec.get("strategy")
    if duration is not None and duration <= 0:
        yield problems.invalid("spec.leaseDurationSeconds", duration, rules.POSITIVE)
    yield from rules.nonnegative("spec.leaseTransitions", spec.get("leaseTransitions"))
    if strategy is not None and "/" in strategy:
        yield from rules.each("spec.strategy.strategy", strategy, rules.qualified(strategy))  # upstream names it twice
    elif strategy is not None and strategy not in _STRATEGIES:
        yield problems.not_supported("spec.strategy.strategy", strategy, _STRATEGIES)
    if spec.get("preferredHolder") and not strategy:
        yield problems.forbidden("spec.preferredHolder", "may only be specified if `strategy` is defined")


LEASE = Kind(
    group="coordination.k8s.io",
    version="v1",
    kind="Lease",
    plural="leases",
    singular="lease",
    schema="io.k8s.api.coordination.v1.Lease",
    validate=validate,
    ephemeral=True,
    allow_create_on_update=True,
    unconditional_update=False,
    columns=(
        NAME,
        Column("Holder", lambda o, _: (o.get("spec") or {}).get("holderIdentity") or "", description="Who holds the lease."),
        AGE,
    ),
)
