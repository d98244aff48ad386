"""What every backend must do with packets, in a real kernel: connections between namespaces, for each backend and both address families."""

import pytest

from edgekube.proxy import conntrack
from edgekube.proxy.backend import Node
from edgekube.proxy.iptables import IptablesBackend
from edgekube.proxy.ipvs import IpvsBackend
from edgekube.proxy.model import ANY4, ANY6, Endpoint, Front, Target, changes, stale_udp
from edgekube.proxy.modes import remove_leftovers
from edgekube.proxy.nftables import NftablesBackend
from edgekube.proxy.userspace import UserspaceBackend
from tests.kit.proxyhost import ADDRESSES, OWN, PODS, PORT, SERVICES, proxy_host
from tests.kit.requires import needs

pytestmark = needs("root", "netns")

BACKENDS = {
    "nftables": NftablesBackend,
    "iptables": IptablesBackend,
    "iptables-legacy": lambda node: IptablesBackend(node, "legacy"),
    "userspace": UserspaceBackend,
    "ipvs": IpvsBackend,
}
NODE = Node(instance="test", pods=PODS, services=SERVICES)


class World:
    """One backend on a host, and the addresses of one family."""

    def __init__(self, host, make, six):
        self.host, self.six, self.backend, self.targets = host, six, host.do(lambda: _made(make)), {}
        self.cluster_ip, self.outside_ip = ("fd43::5", "2001:db8:9::9") if six else ("10.43.0.5", "198.51.100.9")
        self.any, self.own = (ANY6 if six else ANY4), OWN[six]

    def address(self, name):
        return ADDRESSES[name][self.six]

    def seen(self, name):
        """The address by which an endpoint here knows the client: relays have only their own."""
        return self.own if self.relays else self.address(name)

    @property
    def relays(self):
        return self.backend.name == "userspace"

    def endpoints(self, *names):
        return tuple(Endpoint(self.address(name), PORT, name != "far") for name in names)

    def front(self, port=80, address=None, protocol="tcp"):
        return Front(address or self.cluster_ip, protocol, port)

    def replace(self, targets):
        self.targets = targets
        self.host.do(lambda: self.backend.replace(targets))

    def apply(self, targets):
        old, new = changes(self.targets, targets)
        self.targets = targets
        self.host.do(lambda: self.backend.apply(old, new))
        self.host.do(lambda: conntrack.forget(stale_udp(old, new)))


async def _made(make):
    return make(NODE)


@pytest.fixture(scope="module")
def shared_host():
    with proxy_host() as host:
        yield host


@pytest.fixture(params=[pytest.param(name, marks=needs(name)) for name in BACKENDS])
def make(request):
    return BACKENDS[request.param]


@pytest.fixture(params=[False, True], ids=["ipv4", "ipv6"])
def world(shared_host, make, request):
    found = World(shared_host, make, request.param)
    found.replace({})
    yield found
    found.replace({})
    shared_host.do(lambda: _closed(found.backend))
    shared_host.do(lambda: remove_leftovers(NODE))


async def _closed(backend):
    backend.close()


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_cluster_address_spreads_over_endpoints_here_and_elsewhere(world, protocol):
    front = world.front(protocol=protocol)
    world.replace({front: Target(world.endpoints("one", "two", "far"))})
    for where in ("host", "one", "outside"):
        assert world.host.names(where, front.address, 80, protocol) == {"one", "two", "far"}


def test_pods_keep_their_address_and_reach_themselves(world):
    world.replace({world.front(): Target(world.endpoints("one", "two", "far"))})
    answers = {world.host.ask("one", world.cluster_ip, 80) for _ in range(60)}
    assert {answer.split()[0] for answer in answers} == {"one", "two", "far"}
    if not world.relays:
        mine = world.address("one")
        assert {f"two {mine}", f"far {mine}"} <= answers
    assert len(answers) == 3  # and itself, seen from an address of the node


def test_a_node_port_answers_on_every_local_address_and_keeps_clients_of_local_endpoints(world):
    world.replace({world.front(30080, world.any): Target(world.endpoints("one", "far"), masquerade=True)})
    for where, address in (("host", world.address("host")), ("host", world.own), ("one", world.own), ("two", world.address("host"))):
        assert world.host.names(where, address, 30080) == {"one", "far"}
    outside = {world.host.ask("outside", world.address("host"), 30080) for _ in range(40)}
    assert f"one {world.seen('outside')}" in outside
    assert any(answer.startswith("far ") for answer in outside)
    if not world.six and world.backend.name != "ipvs":  # the kernel does not let IPVS lead 127.0.0.0/8 elsewhere
        assert world.host.names("host", "127.0.0.1", 30080) == {"one", "far"}
    if not world.six:
        assert world.host.refused("outside", world.address("host"), 30081)


@pytest.mark.parametrize("affinity", [0, 60])
def test_local_traffic_keeps_clients_and_short_circuits_the_cluster(world, affinity):
    only_here = Target(world.endpoints("one"), inside=world.endpoints("one", "two", "far"), affinity_seconds=affinity)
    world.replace({world.front(30080, world.any): only_here, world.front(80, world.outside_ip): only_here})
    for address, port in ((world.address("host"), 30080), (world.outside_ip, 80)):
        assert {world.host.ask("outside", address, port) for _ in range(20)} == {f"one {world.seen('outside')}"}
        if not affinity:
            assert world.host.names("two", address, port) == {"one", "two", "far"}
    if not affinity:
        assert world.host.names("host", world.address("host"), 30080) == {"one", "two", "far"}
    else:
        assert len(world.host.names("two", world.outside_ip, 80)) == 1


@pytest.mark.parametrize("affinity", [0, 60])
def test_local_without_endpoints_here_drops_from_outside_only(world, affinity):
    elsewhere = Target((), inside=world.endpoints("far"), drop=True, affinity_seconds=affinity)
    world.replace({world.front(30080, world.any): elsewhere, world.front(): Target((), drop=True)})
    assert world.host.dropped("outside", world.address("host"), 30080)
    assert world.host.names("one", world.own, 30080, tries=3) == {"far"}
    for where in ("host", "one"):
        assert world.host.dropped(where, world.cluster_ip, 80)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_what_has_no_endpoints_or_no_service_is_refused_at_once(world, protocol):
    fronts = [world.front(80, protocol=protocol), world.front(80, world.outside_ip, protocol), world.front(30080, world.any, protocol)]
    world.replace(dict.fromkeys(fronts, Target()))
    for where in ("host", "one", "outside"):
        for address, port in ((world.cluster_ip, 80), (world.cluster_ip, 81), (world.address("host"), 30080)):
            if protocol == "udp" and where == "host":
                continue  # the kernel does not tell a local socket
            assert world.host.refused(where, address, port, protocol), (where, address, port)
    assert world.host.refused("outside", world.outside_ip, 80, protocol)
    assert world.host.refused("one", world.outside_ip, 80, protocol)


def test_a_refused_node_port_does_not_fall_to_a_listener_of_the_host(world):
    if world.relays:
        pytest.skip("NOT POSSIBLE with userspace: without rules in the kernel a port that a program of the host has is that program's")
    world.replace({world.front(PORT, world.any): Target()})
    server = world.host.do(lambda: _listen(PORT))
    try:
        assert world.host.refused("outside", world.address("host"), PORT)
    finally:
        world.host.do(lambda: _close(server))


def test_a_front_on_the_nodes_own_address_leaves_its_other_ports_alone(world):
    address = world.address("host")
    server = world.host.do(lambda: _listen(2222))
    try:
        world.replace({world.front(80, address): Target(world.endpoints("one", "two"), masquerade=True)})
        assert world.host.names("outside", address, 80) == {"one", "two"}
        for _ in range(2):
            for where in ("outside", "one", "host"):
                assert world.host.ask(where, address, 2222) == ""  # connected, and told nothing
            world.apply({})
        assert world.host.refused("outside", address, 80)
    finally:
        world.host.do(lambda: _close(server))


async def _listen(port):
    import asyncio

    return await asyncio.start_server(lambda _reader, writer: writer.close(), None, port)


async def _close(server):
    server.close()
    await server.wait_closed()


def test_source_ranges_admit_only_their_clients(world):
    target = Target(world.endpoints("one", "two"), masquerade=True)
    width = "128" if world.six else "32"
    allowed = Target(target.endpoints, masquerade=True, sources=(f"{world.address('outside')}/{width}",))
    front = world.front(80, world.outside_ip)
    world.replace({front: allowed, world.front(): target})
    assert world.host.names("outside", world.outside_ip, 80) == {"one", "two"}
    assert world.host.dropped("one", world.outside_ip, 80)
    assert world.host.names("one", world.cluster_ip, 80) == {"one", "two"}
    other = "2001:db8:7::/64" if world.six else "203.0.113.0/24"
    world.apply({front: Target(target.endpoints, masquerade=True, sources=(other,)), world.front(): target})
    assert world.host.dropped("outside", world.outside_ip, 80)
    world.apply({front: target, world.front(): target})
    assert world.host.names("one", world.outside_ip, 80) == {"one", "two"}


def test_changes_are_differences_and_leave_the_rest(world):
    other = {world.front(90): Target(world.endpoints("far"))}
    world.replace(other)
    world.apply(other | {world.front(): Target(world.endpoints("one"))})
    assert world.host.names("host", world.cluster_ip, 80, tries=5) == {"one"}
    world.apply(other | {world.front(): Target(world.endpoints("one", "two"))})
    assert world.host.names("host", world.cluster_ip, 80) == {"one", "two"}
    world.apply(other | {world.front(): Target(world.endpoints("two"))})
    assert world.host.names("one", world.cluster_ip, 80, tries=10) == {"two"}
    world.apply(other | {world.front(): Target()})
    assert world.host.refused("one", world.cluster_ip, 80)
    world.apply(other)
    assert world.host.refused("host", world.cluster_ip, 80)
    assert world.host.names("host", world.cluster_ip, 90, tries=3) == {"far"}


def test_affinity_keeps_a_client_across_changes_and_a_full_rewrite(world):
    both = {world.front(): Target(world.endpoints("one", "two"), affinity_seconds=60)}
    world.replace(both)
    (first,) = world.host.names("outside", world.cluster_ip, 80, tries=1)
    world.replace(both)
    assert world.host.names("outside", world.cluster_ip, 80, tries=20) == {first}
    world.apply({world.front(): Target(world.endpoints("one", "two", "far"), affinity_seconds=60)})
    assert world.host.names("outside", world.cluster_ip, 80, tries=20) == {first}
    left = "two" if first == "one" else "one"
    world.apply({world.front(): Target(world.endpoints(left), affinity_seconds=60)})
    assert world.host.names("outside", world.cluster_ip, 80, tries=20) == {left}
    world.apply({})
    assert world.host.refused("outside", world.cluster_ip, 80)


@pytest.mark.parametrize("where", ["cluster", "node port", "outside address"])
def test_a_udp_flow_follows_its_service(world, where):
    """One socket, so one flow: from nothing to an endpoint, to another, and away."""
    front = {
        "cluster": world.front(53, protocol="udp"),
        "node port": world.front(30053, world.any, "udp"),
        "outside address": world.front(53, world.outside_ip, "udp"),
    }[where]
    address = world.address("host") if where == "node port" else front.address
    client = _udp_client(world.host, "outside", address, front.port)
    try:
        client.send(b"?")  # into the void: the kernel remembers that too
        _drain(client)
        for name in ("one", "two", "far", "one", "two") * 4:
            world.apply({front: Target(world.endpoints(name), masquerade=True)})
            client.send(b"?")
            assert client.recv(100).split()[0] == name.encode()
    finally:
        client.close()


def _udp_client(host, where, address, port):
    import socket

    from tests.kit import netns as ns

    client = ns.call_inside(
        host.paths[where], lambda: socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    )
    client.settimeout(2)
    client.connect((address, port))
    return client


def _drain(client):
    """The refusal, if one came."""
    client.settimeout(0.3)
    try:
        client.recv(10)
    except (ConnectionRefusedError, TimeoutError):
        client.settimeout(2)


def test_routing_by_marks_of_others_is_left_alone(world):
    """A transparent proxy on the host, say, routes by small marks."""
    family = "-6" if world.six else "-4"
    rules = [f"ip {family} rule add fwmark {mark} prohibit" for mark in ("1", "2", "0x4000", "0x10000/0xff0000")]
    world.host.run("; ".join(rules))
    try:
        target = Target(world.endpoints("one", "two", "far"), masquerade=True)
        world.replace({world.front(): target, world.front(30080, world.any): target})
        for where in ("host", "one", "outside"):
            assert world.host.names(where, world.cluster_ip, 80) == {"one", "two", "far"}
            assert world.host.names(where, world.address("host"), 30080) == {"one", "two", "far"}
    finally:
        world.host.run("; ".join(rule.replace(" add ", " del ") for rule in rules))


def test_foreign_tables_stay_as_they_are(world):
    world.host.run(
        'nft "add table ip foreign; add chain ip foreign c { type filter hook input priority 0 ; }; add rule ip foreign c accept"'
    )
    before = world.host.run("nft list table ip foreign")
    world.replace({world.front(): Target(world.endpoints("one"))})
    world.apply({})
    assert world.host.run("nft list table ip foreign") == before
    world.host.run("nft delete table ip foreign")
