"""EventRateLimit: a node that is out of its mind, or stolen, does not fill the server's memory with Events.

Upstream has it as plugin/pkg/admission/eventratelimit with limits to configure; here there is one, for each node, well above what a node
says that starts with a hundred pods. Events live for an hour.
"""

from collections import OrderedDict

from edgekube.apiserver.admission.common import BasePlugin
from edgekube.apiserver.admission.protocol import Admission
from edgekube.apiserver.identity import node_of
from edgekube.errors import TooManyRequests
from edgekube.lib.clock import Clock
from edgekube.lib.ratelimit import RateLimit

RATE, BURST = 3.0, 1000  # of one node: a second in the long run, and at once
_MOST = 4096


class EventRateLimit(BasePlugin):
    """See the module. Updates count too: each is a write."""

    name = "EventRateLimit"
    kinds = ("events",)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._limits: OrderedDict[str, RateLimit] = OrderedDict()

    async def validate(self, request: Admission) -> None:
        node = node_of(request.user)
        if node is None or request.operation == "DELETE" or request.dry_run:
            return
        limit = self._limits.get(node)
        if limit is None:
            limit = self._limits[node] = RateLimit(rate=RATE, burst=BURST)
            if len(self._limits) > _MOST:
                self._limits.popitem(last=False)
        if not limit.allows(self._clock.monotonic()):
            text = f"limit reached on type User for key {request.user.name}"
            raise TooManyRequests(text, details={"retryAfterSeconds": 10})
