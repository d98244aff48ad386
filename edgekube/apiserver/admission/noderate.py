"""NodeRate: a node that is out of its mind, or stolen, or who holds a join token, does not fill the server's memory.

    events                        created and updated: well above what a node says that starts with a hundred pods; they live for an hour
    certificatesigningrequests    created: a join and a renewal are a few; with one token many machines may join at once
    pods                          created: mirrors of static pods

Upstream has plugin/pkg/admission/eventratelimit for the first, with limits to configure. Here each node and each token has its own.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from edgekube.api.bootstraptokens import USER_PREFIX
from edgekube.apiserver.admission.common import BasePlugin
from edgekube.apiserver.admission.protocol import Admission
from edgekube.apiserver.identity import node_of
from edgekube.errors import TooManyRequests
from edgekube.lib.clock import Clock
from edgekube.lib.ratelimit import RateLimit


class Rate(NamedTuple):
    """So many a second in the long run, and so many at once."""

    rate: float
    burst: int


RATES: Mapping[str, Rate] = {
    "events": Rate(3.0, 1000),
    "certificatesigningrequests": Rate(0.1, 300),
    "pods": Rate(0.1, 300),
}
_MOST = 4096  # users and kinds that are remembered


class NodeRate(BasePlugin):
    """See the module. Each write counts, whatever becomes of it."""

    name = "NodeRate"
    kinds = tuple(RATES)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._limits: OrderedDict[tuple[str, str], RateLimit] = OrderedDict()

    async def validate(self, request: Admission) -> None:
        kind, user = request.kind.plural, request.user
        counted = request.operation == "CREATE" or (kind == "events" and request.operation == "UPDATE")
        if not counted or request.subresource or (node_of(user) is None and not user.name.startswith(USER_PREFIX)):
            return
        limit = self._limits.get((kind, user.name))
        if limit is None:
            rate = RATES[kind]
            limit = self._limits[kind, user.name] = RateLimit(rate=rate.rate, burst=rate.burst)
            if len(self._limits) > _MOST:
                self._limits.popitem(last=False)
        if not limit.allows(self._clock.monotonic()):
            text = f"limit reached on type User for key {user.name}: too many new {kind}"
            raise TooManyRequests(text, details={"retryAfterSeconds": 10})
