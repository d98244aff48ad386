"""The rules of joining under a name, as a table; pins to Secrets and back."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from edgekube.api import bootstraptokens, nodeidentity
from edgekube.api.nodeidentity import Join, Pin, plan_join

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=30)
TOKEN = bootstraptokens.read(bootstraptokens.secret_of("abcdef.0123456789abcdef", now=NOW))
ONCE = replace(TOKEN, uses=1)
JOIN = Join(node="pi", key="k", now=NOW, token=TOKEN, by_token=True)
OTHER = Pin("pi", "other", since=LONG_AGO)
MINE = Pin("pi", "k", since=LONG_AGO)


def node(ready="", machine="m"):
    conditions = [{"type": "Ready", "status": ready}] if ready else []
    return {"metadata": {"name": "pi"}, "status": {"conditions": conditions, "nodeInfo": {"machineID": machine}}}


@pytest.mark.parametrize(
    ("join", "reason"),
    [
        (JOIN, ""),
        (replace(JOIN, node="a b"), "NameInvalid"),
        # who
        (replace(JOIN, key_revoked=True), "KeyRevoked"),
        (replace(JOIN, pin=Pin("pi", "k", frozenset(("k",)))), "KeyRevoked"),
        (replace(JOIN, pin=Pin("pi", "new", frozenset(("k",)))), "KeyRevoked"),
        (replace(JOIN, itself=True, by_token=False, token=None, pin=MINE), ""),
        (replace(JOIN, itself=True, by_token=False, token=None, pin=OTHER), "KeyChanged"),
        (replace(JOIN, server=True), "NameInUse"),
        (replace(JOIN, owner="pie"), "KeyInUse"),
        # its token
        (replace(JOIN, token=None), "TokenRevoked"),
        (replace(JOIN, token=replace(TOKEN, expires=NOW)), "TokenExpired"),
        (replace(JOIN, token=replace(TOKEN, node="pie")), "TokenBoundToNode"),
        (replace(JOIN, token=replace(ONCE, used_by=("a x",))), "TokenUsedUp"),
        (replace(JOIN, token=replace(ONCE, used_by=("pi x",))), "TokenUsedUp"),
        (replace(JOIN, token=replace(ONCE, used_by=("pi k",))), ""),
        (replace(JOIN, pin=MINE, token=replace(ONCE, used_by=("a x",))), "TokenUsedUp"),
        # the name
        (replace(JOIN, pin=MINE, found=node("True")), ""),
        (replace(JOIN, pin=OTHER), ""),
        (replace(JOIN, pin=OTHER, found=node("True")), "NameInUse"),
        (replace(JOIN, pin=OTHER, found=node("False")), "NameInUse"),
        (replace(JOIN, pin=OTHER, found=node("Unknown")), "NameTaken"),
        (replace(JOIN, pin=OTHER, found=node()), "NameTaken"),
        (replace(JOIN, pin=OTHER, found=node("True"), machine="m"), "Wait"),
        (replace(JOIN, pin=OTHER, found=node("True"), machine="m", answers=False), "NameTaken"),
        (replace(JOIN, pin=OTHER, found=node("True"), machine="m", answers=True), "NameInUse"),
        (replace(JOIN, pin=OTHER, found=node("Unknown"), machine="m"), "NameTaken"),
        (replace(JOIN, pin=OTHER, found=node("True"), machine="n"), "NameInUse"),
        (replace(JOIN, pin=OTHER, found=node("True", machine="")), "NameInUse"),
        (replace(JOIN, found=node()), ""),
        (replace(JOIN, found=node("True")), "NameInUse"),
        # a machine that is joining right now
        (replace(JOIN, pin=replace(OTHER, since=NOW)), "NameInUse"),
        (replace(JOIN, pin=replace(OTHER, since=NOW), seen=True), ""),
        (replace(JOIN, pin=replace(OTHER, since=NOW), found=node()), "NameInUse"),
        (replace(JOIN, pin=replace(OTHER, since=NOW - nodeidentity.JOINING)), ""),
        # a token made for the name
        (replace(JOIN, token=replace(TOKEN, node="pi"), pin=OTHER, found=node("True")), ""),
        (replace(JOIN, token=replace(TOKEN, node="pi"), server=True), "NameInUse"),
        # an administrator's request
        (replace(JOIN, by_token=False, token=None, pin=OTHER, found=node("Unknown")), "NameTaken"),
        (replace(JOIN, by_token=False, token=None), ""),
    ],
)
def test_who_gets_a_name(join, reason):
    verdict = plan_join(join)
    assert verdict.reason == reason
    assert bool(verdict.message) is bool(reason)


def test_a_pin_survives_revocation_and_a_new_owner():
    secret = nodeidentity.pinned("pi", "first", NOW, None)
    assert nodeidentity.read(secret) == Pin("pi", "first", frozenset(), NOW)
    gone = nodeidentity.revoked(secret)
    assert (nodeidentity.read(gone).revoked, nodeidentity.read(gone).trusts("first")) == (True, False)
    assert nodeidentity.revoked(gone) == gone
    taken = nodeidentity.read(nodeidentity.pinned("pi", "second", NOW, gone))
    assert (taken.key, taken.revoked, taken.revoked_keys) == ("second", False, {"first"})
    assert nodeidentity.read(secret) == Pin("pi", "first", frozenset(), NOW)  # nothing was changed in place
