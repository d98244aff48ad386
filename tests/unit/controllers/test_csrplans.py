"""Signing requests: whose addresses they are, when they are old, how long certificates hold."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edgekube.controllers.csrplans import Asked, plan_cleanup, plan_signature, serving_problem
from edgekube.lib import csr, pki
from edgekube.lib.clock import FakeClock, rfc3339
from edgekube.lib.pki import Subject

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def asked(*addresses, names=("pi",), seconds=None):
    subject = Subject("system:node:pi", ("system:nodes",), names, addresses, server=True)
    request = csr.parse(csr.make(pki.create_key(), subject))
    return Asked("a", "system:node:pi", "kubernetes.io/kubelet-serving", ("digital signature", "server auth"), request, seconds, "")


def node(name, *addresses, type="InternalIP"):
    return {"metadata": {"name": name}, "status": {"addresses": [{"type": type, "address": one} for one in addresses]}}


@pytest.mark.parametrize(
    ("wanted", "nodes", "problem"),
    [
        (asked("192.0.2.1"), [], ""),
        (asked("192.0.2.1"), [node("pi")], ""),
        (asked("192.0.2.1"), [node("pi"), node("b", "192.0.2.1")], "192.0.2.1 is an address of node b"),
        (asked("192.0.2.1"), [node("pi", "192.0.2.1")], ""),
        (asked("192.0.2.1", "192.0.2.2"), [node("pi", "192.0.2.1")], "192.0.2.2 is not an address of node pi"),
        (asked("2001:db8::1"), [node("pi", "2001:0db8::0001")], ""),
        (asked("192.0.2.1", names=("pi", "api")), [], "api is not a name of node pi"),
        (asked(names=("pi", "pi.lan")), [node("pi", "pi.lan", type="Hostname")], "pi.lan is not a name of node pi"),
        (asked(names=("PI",)), [], "PI is not a name of node pi"),
        (asked(names=("*.default.svc",)), [node("pi", "*.default.svc", type="InternalDNS")], "*.default.svc is not a name of node pi"),
    ],
)
def test_serving_names(wanted, nodes, problem):
    assert serving_problem(wanted, nodes) == problem


def made(clock, *conditions, certificate=""):
    found = {"metadata": {"creationTimestamp": rfc3339(clock.now())}, "status": {}}
    if conditions:
        found["status"]["conditions"] = [{"type": type, "lastUpdateTime": rfc3339(clock.now())} for type in conditions]
    if certificate:
        found["status"]["certificate"] = certificate
    return found


@pytest.mark.parametrize(
    ("conditions", "certificate", "seconds"),
    [
        ((), "", 24 * 3600),
        (("Denied",), "", 3600),
        (("Approved",), "x", 3600),
        (("Approved",), "", None),
        (("Approved", "Failed"), "", 3600),
    ],
)
def test_age(conditions, certificate, seconds):
    clock = FakeClock(NOW)
    found = made(clock, *conditions, certificate=certificate)
    assert plan_cleanup(found, clock) == seconds
    clock.advance(10)
    clock.jump(400 * 24 * 3600)
    assert plan_cleanup(found, clock) == (None if seconds is None else seconds - 10)  # a clock that was set ages nothing
    clock.advance(25 * 3600)
    assert plan_cleanup(found, clock) == (None if seconds is None else 0)


@pytest.mark.parametrize(("seconds", "expected"), [(None, 86400), (10**9, 86400), (3600, 3600), (1, 600)])
async def test_a_certificate_holds_as_long_as_asked_and_allowed(tmp_path: Path, seconds, expected):
    authority = tmp_path / "ca.pem"
    authority.write_bytes(pki.create_authority("ca", NOW))
    text = await plan_signature(authority, asked("192.0.2.1", seconds=seconds), now=NOW, life=timedelta(days=1))
    dates = pki.dates_of(base64.b64decode(text))
    assert (dates.not_after - dates.issued).total_seconds() == expected
