"""How many Events a node may write."""

import pytest

from edgekube.api import catalog
from edgekube.apiserver.admission.eventrate import BURST, RATE, EventRateLimit
from edgekube.apiserver.admission.protocol import Admission
from edgekube.apiserver.identity import User
from edgekube.errors import TooManyRequests
from edgekube.lib.clock import FakeClock


def writes(user: str) -> Admission:
    return Admission("CREATE", catalog.EVENT, "default", "e", "", User(user, ("system:nodes",) if "node" in user else ()), {}, None)


async def test_a_flood_is_held_back_and_nobody_elses() -> None:
    clock = FakeClock()
    plugin = EventRateLimit(clock)
    for _ in range(BURST):
        await plugin.validate(writes("system:node:pi"))
    with pytest.raises(TooManyRequests, match="limit reached on type User for key system:node:pi") as caught:
        await plugin.validate(writes("system:node:pi"))
    assert caught.value.retry_after == 10
    await plugin.validate(writes("system:node:other"))
    for _ in range(BURST + 1):
        await plugin.validate(writes("controller"))
    clock.advance(10)
    for _ in range(int(10 * RATE)):
        await plugin.validate(writes("system:node:pi"))
    with pytest.raises(TooManyRequests):
        await plugin.validate(writes("system:node:pi"))
