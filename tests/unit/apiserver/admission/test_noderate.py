"""How much a node, or who holds a token, may write."""

import pytest

from edgekube.api import catalog
from edgekube.api.kind import Kind
from edgekube.apiserver.admission.noderate import RATES, NodeRate
from edgekube.apiserver.admission.protocol import Admission
from edgekube.apiserver.identity import User
from edgekube.errors import TooManyRequests
from edgekube.lib.clock import FakeClock


def writes(user: str, kind: Kind, operation: str = "CREATE", sub: str = "") -> Admission:
    groups = ("system:nodes",) if "node" in user else ("system:bootstrappers",)
    return Admission(operation, kind, "default", "e", sub, User(user, groups), {}, None)


@pytest.mark.parametrize("user", ["system:node:pi", "system:bootstrap:abcdef"])
@pytest.mark.parametrize("kind", [catalog.EVENT, catalog.CERTIFICATE_SIGNING_REQUEST, catalog.POD])
async def test_a_flood_is_held_back_and_nobody_elses(user: str, kind: Kind) -> None:
    clock, rate = FakeClock(), RATES[kind.plural]
    plugin = NodeRate(clock)
    for _ in range(rate.burst):
        await plugin.validate(writes(user, kind))
    with pytest.raises(TooManyRequests, match=f"limit reached on type User for key {user}: too many new {kind.plural}") as caught:
        await plugin.validate(writes(user, kind))
    assert caught.value.retry_after == 10
    await plugin.validate(writes("system:node:other", kind))
    await plugin.validate(writes(user, kind, "UPDATE", "status"))
    await plugin.validate(writes(user, kind, "DELETE"))
    for _ in range(rate.burst + 1):
        await plugin.validate(writes("somebody", kind))
    clock.advance(100)
    for _ in range(min(rate.burst, int(100 * rate.rate))):
        await plugin.validate(writes(user, kind))
    with pytest.raises(TooManyRequests):
        await plugin.validate(writes(user, kind))


async def test_an_event_that_is_written_again_is_a_write() -> None:
    plugin = NodeRate(FakeClock())
    for _ in range(RATES["events"].burst):
        await plugin.validate(writes("system:node:pi", catalog.EVENT, "UPDATE"))
    with pytest.raises(TooManyRequests):
        await plugin.validate(writes("system:node:pi", catalog.EVENT, "UPDATE"))
