"""Which endpoint a client of a relayed front gets: at random, or the one it had (affinity). Pure but for the memory of clients.

Bounded: 65,535 clients of a front are remembered, as in the nftables backend; the one not seen for longest goes first.
"""

import random
from collections import OrderedDict
from collections.abc import Callable, Sequence

from edgekube.proxy.model import Endpoint, Target

_MOST_CLIENTS = 65535


class Balance:
    """Of one front."""

    def __init__(self, target: Target, *, is_inside: Callable[[str], bool], now: Callable[[], float]) -> None:
        self.target = target
        self._is_inside, self._now = is_inside, now
        self._known: OrderedDict[str, tuple[Endpoint, float]] = OrderedDict()

    def replace(self, target: Target) -> None:
        """Clients keep their endpoints as far as those are still there."""
        self.target = target
        if not target.affinity_seconds:
            self._known.clear()

    def order(self, client: str) -> Sequence[Endpoint]:
        """Endpoints to try, the best first; none: this client has nowhere to go."""
        target = self.target
        choice = target.inside if target.inside and self._is_inside(client) else target.endpoints
        shuffled = random.sample(choice, len(choice))
        had = self._had(client, choice) if target.affinity_seconds else None
        return [had, *(endpoint for endpoint in shuffled if endpoint != had)] if had is not None else shuffled

    def _had(self, client: str, choice: Sequence[Endpoint]) -> Endpoint | None:
        endpoint, until = self._known.get(client, (None, 0.0))
        return endpoint if endpoint in choice and self._now() < until else None

    def took(self, client: str, endpoint: Endpoint) -> None:
        """The client is connected there."""
        if self.target.affinity_seconds:
            self._known[client] = (endpoint, self._now() + self.target.affinity_seconds)
            self._known.move_to_end(client)
            if len(self._known) > _MOST_CLIENTS:
                self._known.popitem(last=False)
