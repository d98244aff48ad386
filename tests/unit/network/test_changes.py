"""Two pictures compared: what is missing, what must go, what is somebody's."""

import socket
import struct

import pytest

from edgekube.network.changes import LABEL, PROTOCOL, Picture, changes, device_changes
from edgekube.network.events import Expectation
from edgekube.network.model import Device, Forward, Local, NeighbourAt, RouteTo, Wanted
from edgekube.network.rtnl import BRIDGE, NUD_PERMANENT, Address, Link, Message, Neighbour, Route

LO, ETH0, TUNNEL = 1, 2, 7
LINKS = (
    Link(LO, "lo", True, 65536, "", "", "", {}),
    Link(ETH0, "eth0", True, 1500, "", "", "", {}),
    Link(TUNNEL, "ekv", True, 1450, "02:00:00:00:00:0a", "alias", "vxlan", {}),
)
ROUTE = RouteTo("10.42.1.0/24", "ekv", "10.42.1.0", "10.42.0.1")
NEIGHBOUR = NeighbourAt("ekv", "10.42.1.0", "02:00:00:00:00:0b")
FORWARD = Forward("ekv", "02:00:00:00:00:0b", "192.0.2.2")
OWN = Local("lo", "10.42.0.1/32")
WANTED = Wanted(None, frozenset(("ekv", "lo")), frozenset((OWN,)), frozenset((ROUTE,)), frozenset((NEIGHBOUR,)), frozenset((FORWARD,)))

HAVE_ROUTE = Route("10.42.1.0/24", TUNNEL, "10.42.1.0", "10.42.0.1", 0, PROTOCOL, 0, 0, 1)
HAVE_NEIGHBOUR = Neighbour(socket.AF_INET, TUNNEL, "10.42.1.0", "02:00:00:00:00:0b", NUD_PERMANENT, 0)
HAVE_FORWARD = Neighbour(BRIDGE, TUNNEL, "192.0.2.2", "02:00:00:00:00:0b", 0xC0, 2)
HAVE_OWN = Address(LO, "10.42.0.1", 32, LABEL, 0)


def compare(
    *, links=LINKS, addresses=(HAVE_OWN,), routes=(HAVE_ROUTE,), neighbours=(HAVE_NEIGHBOUR,), forwards=(HAVE_FORWARD,), wanted=WANTED
):
    return changes(wanted, Picture(links, addresses, routes, neighbours, forwards), ours={"ekv"})


def test_as_wanted_is_nothing_to_do():
    assert not compare()


def test_everything_missing_is_made_addresses_first_and_routes_last():
    found = compare(addresses=(), routes=(), neighbours=(), forwards=())
    assert found.ensure == (OWN, NEIGHBOUR, FORWARD, ROUTE)
    assert found.remove == ()


def test_a_link_that_is_down_is_set_up():
    assert compare(links=(*LINKS[:2], LINKS[2]._replace(up=False))).up == ("ekv",)


def test_what_is_on_a_link_that_is_not_there_waits():
    assert compare(links=LINKS[:2], routes=(), neighbours=(), forwards=()).ensure == ()


@pytest.mark.parametrize(
    "entry",
    [
        HAVE_NEIGHBOUR._replace(mac="02:00:00:00:00:ff"),
        HAVE_NEIGHBOUR._replace(mac="", state=1),  # being asked for: INCOMPLETE
        HAVE_NEIGHBOUR._replace(state=2),
    ],
)
def test_a_wrong_neighbour_is_replaced_and_not_removed_afterwards(entry):
    found = compare(neighbours=(entry,))
    assert (found.ensure, found.remove) == ((NEIGHBOUR,), ())


def test_a_wrong_route_is_replaced_and_not_removed_afterwards():
    found = compare(routes=(HAVE_ROUTE._replace(mtu=1300),))
    assert (found.ensure, found.remove) == ((ROUTE,), ())


def test_what_is_not_wanted_on_our_link_goes():
    more = Route("10.42.9.0/24", TUNNEL, "", "", 0, 4, 0, 0, 1)
    found = compare(
        routes=(HAVE_ROUTE, more),
        neighbours=(HAVE_NEIGHBOUR, HAVE_NEIGHBOUR._replace(address="10.42.9.0")),
        forwards=(HAVE_FORWARD, HAVE_FORWARD._replace(address="192.0.2.9")),
        addresses=(HAVE_OWN, HAVE_OWN._replace(address="10.42.7.1"), Address(TUNNEL, "10.42.7.2", 32, "", 0)),
    )
    assert found.ensure == ()
    assert set(found.remove) == {
        RouteTo("10.42.9.0/24", "ekv"),
        NeighbourAt("ekv", "10.42.9.0", "02:00:00:00:00:0b"),
        Forward("ekv", "02:00:00:00:00:0b", "192.0.2.9"),
        Local("lo", "10.42.7.1/32"),
        Local("ekv", "10.42.7.2/32"),
    }


def test_what_is_somebody_elses_stays():
    found = compare(
        routes=(
            HAVE_ROUTE,
            Route("172.30.0.0/16", ETH0, "192.0.2.1", "", 0, 3, 0, 0, 1),
            Route("fe80::/64", TUNNEL, "", "", 256, 2, 0, 0, 1),
        ),
        neighbours=(HAVE_NEIGHBOUR, Neighbour(socket.AF_INET, ETH0, "192.0.2.1", "02:00:00:00:00:01", 2, 0)),
        addresses=(HAVE_OWN, Address(LO, "127.0.0.1", 8, "lo", 0), Address(ETH0, "192.0.2.5", 24, "eth0", 0)),
    )
    assert not found


def test_a_stale_route_of_ours_goes_wherever_it_leads():
    found = compare(routes=(HAVE_ROUTE, Route("10.42.5.0/24", ETH0, "192.0.2.5", "10.42.0.1", 0, PROTOCOL, 0, 0, 1)))
    assert found.remove == (RouteTo("10.42.5.0/24", "eth0", "192.0.2.5", "10.42.0.1"),)


DEVICE = Device("ekv", "alias", "02:00:00:00:00:0a", "192.0.2.1", ETH0, 8472, 1450)
DATA = {1: struct.pack("=I", 1), 3: struct.pack("=I", ETH0), 4: socket.inet_aton("192.0.2.1"), 15: struct.pack(">H", 8472), 18: b"\0"}
GOOD = Link(TUNNEL, "ekv", True, 1450, "02:00:00:00:00:0a", "alias", "vxlan", DATA)


@pytest.mark.parametrize(
    ("links", "remove", "create", "adjust"),
    [
        ([], (), True, False),
        ([GOOD], (), False, False),
        ([GOOD._replace(mtu=600)], (), False, True),
        ([GOOD._replace(name="other")], (TUNNEL,), True, False),
        ([GOOD._replace(kind="dummy", data={})], (TUNNEL,), True, False),
        ([GOOD._replace(mac="02:00:00:00:00:ff")], (TUNNEL,), True, False),
        ([GOOD._replace(data={**DATA, 4: socket.inet_aton("192.0.2.9")})], (TUNNEL,), True, False),
        ([GOOD._replace(data={**DATA, 3: struct.pack("=I", 9)})], (TUNNEL,), True, False),
        ([GOOD._replace(data={**DATA, 15: struct.pack(">H", 4789)})], (TUNNEL,), True, False),
    ],
)
def test_the_tunnel(links, remove, create, adjust):
    found = device_changes(DEVICE, links, name="ekv", alias="alias")
    assert (tuple(found.remove), found.create, found.adjust) == (remove, create, adjust)


def test_a_tunnel_that_is_not_wanted_goes_and_foreign_ones_stay():
    foreign = GOOD._replace(ifindex=9, name="flannel.1", alias="")
    assert tuple(device_changes(None, [GOOD, foreign], name="ekv", alias="alias").remove) == (TUNNEL,)


def neighbour_message(kind, mac=b"\x02\0\0\0\0\x0b", address="10.42.1.0", state=NUD_PERMANENT, index=TUNNEL):
    body = struct.pack("=BxxxiHBB", socket.AF_INET, index, state, 0, 1)
    body += struct.pack("=HH", 8, 1) + socket.inet_aton(address)
    body += struct.pack("=HH", 10, 2) + mac + b"\0\0" if mac else b""
    return Message(kind, 0, body)


@pytest.mark.parametrize(
    ("message", "matters"),
    [
        (None, True),
        (neighbour_message(28), False),
        (neighbour_message(29), True),
        (neighbour_message(28, mac=b"\x02\0\0\0\0\xff"), True),
        (neighbour_message(28, mac=b"", state=0x20), True),
        (neighbour_message(29, mac=b"\x02\0\0\0\0\xff", address="10.42.9.0"), False),
        (neighbour_message(28, index=ETH0, mac=b"\x02\0\0\0\0\xff"), False),
    ],
)
def test_events_are_judged_by_what_is_expected(message, matters):
    expected = Expectation()
    expected.reset(WANTED, {link.ifindex: link.name for link in LINKS}, {"ekv"})
    assert expected.contradicts(message) is matters
