"""What a way of translating connections must be able to do. nftables is the first; the others live behind the same four methods.

A backend gets targets, never Services. It keeps no wishes of its own: after `replace`, or `apply` on what was there, exactly the given
targets hold. Nothing is undone by `close`: rules outlive edgekube, and the next `replace` adopts or overwrites what it finds.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from edgekube.lib.receipt import NoNotes, Notes
from edgekube.proxy.model import Targets


class BackendError(Exception):
    """The kernel refused; the message is its own first line. What holds now is unknown: `replace` next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What is fixed for a node. `pods` and `services` have one range per address family of the cluster."""

    instance: str
    pods: tuple[str, ...]
    services: tuple[str, ...]
    receipt: Notes = field(default_factory=NoNotes, compare=False)  # of what is changed on the host

    @property
    def table(self) -> str:
        return f"edgekube_{self.instance}"


class Backend(Protocol):
    """All methods raise BackendError. Calls never overlap."""

    name: str

    def watch(self, notify: Callable[[], None]) -> None:
        """From now on call `notify` when somebody else changes what was applied."""

    async def replace(self, targets: Targets) -> None:
        """Make everything so, in one step, whatever was there: existing connections go on, clients with affinity keep their endpoint."""

    async def apply(self, old: Targets, new: Targets) -> None:
        """Turn `old`, which holds, into `new`: only these fronts change. Costs what they have, not what there is."""

    def close(self) -> None:
        """Stop watching and let go of what the process holds."""


def families(node: Node) -> tuple[tuple[str, str], ...]:
    """(pods, services) of each address family the cluster has both for."""
    return tuple((pods, services) for pods in node.pods for services in node.services if (":" in pods) == (":" in services))
