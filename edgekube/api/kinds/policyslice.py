"""PolicySlice: a NetworkPolicy as nodes read it, selectors resolved to addresses. Ours, never on disk, made by the controller alone.

The slice of a policy has its name and is owned by it. One more slice, COMPLETE, says that every policy has its slice: after a start of
the server there is none until then, and nodes take no slice for gone before they see it.
"""

from edgekube.api import validate as rules
from edgekube.api.kind import Column, Kind
from edgekube.api.kinds import printing
from edgekube.api.kinds.printing import AGE, NAME
from edgekube.api.owntypes import POLICY_SLICE as SCHEMA_NAME
from edgekube.api.types import Key

COMPLETE = Key("kube-system", "edgekube:complete")  # no NetworkPolicy can have that name

POLICY_SLICE = Kind(
    group="networking.edgekube.io",
    version="v1alpha1",
    kind="PolicySlice",
    plural="policyslices",
    singular="policyslice",
    schema=SCHEMA_NAME,
    ephemeral=True,
    validate_name=rules.path_segment,
    columns=(
        NAME,
        Column(
            "Pod-Selector",
            lambda o, _: printing.selector((o.get("spec") or {}).get("podSelector")),
            description="Selects the pods that are isolated.",
        ),
        Column("Types", lambda o, _: ",".join((o.get("spec") or {}).get("policyTypes") or ()), description="The isolated directions."),
        Column(
            "Peers",
            lambda o, _: sum(_size(peers) for peers in (o.get("spec") or {}).get("peers") or ()),
            type="integer",
            description="How many addresses of pods are admitted.",
        ),
        AGE,
    ),
)


def _size(peers: dict[str, object]) -> int:
    nodes = peers.get("nodes")
    return sum(len(found) for found in nodes.values()) if isinstance(nodes, dict) else 0
