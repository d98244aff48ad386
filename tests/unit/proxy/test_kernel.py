"""The rules in a real kernel: packets between network namespaces through real nftables."""

import asyncio
import socket
import threading

import pytest

from edgekube.lib.nft import Nft, TableWatch
from edgekube.network import links
from edgekube.network.links import Attachment
from edgekube.proxy.model import Endpoint, Front, Plan, Target
from edgekube.proxy.ruleset import Frame, difference, tables_of, whole
from tests.kit import netns as ns
from tests.kit.requires import needs

pytestmark = needs("root", "netns", "nft")

FRAME = Frame(table="edgekube_test", pods="10.42.0.0/16", services="10.43.0.0/16")
SERVICE = Front("10.43.0.5", "tcp", 80)
NODE_PORT = Front("", "tcp", 30080)


class Host:
    """A host namespace with pods, rules applied to it by the real code."""

    def __init__(self, path: str) -> None:
        self.path, self.pods, self.stops = path, {}, []

    def on(self, work, *args, **kwargs):
        def run():
            from pyroute2 import IPRoute

            with IPRoute() as route:
                return work(route, *args, **kwargs)

        return ns.call_inside(self.path, run)

    def add_pod(self, netns: str, address: str) -> None:
        wanted = Attachment(address, links.link_name("t", address), address)
        self.on(links.ensure_pod, wanted, instance="t", netns=netns, source="10.42.0.1")
        self.pods[address] = netns

    def serve(self, address: str, port: int, answer: bytes) -> None:
        """A TCP server in the pod that answers `answer` and the client's address."""
        server = ns.call_inside(self.pods[address], lambda: socket.create_server(("0.0.0.0", port)))

        def loop() -> None:
            while True:
                try:
                    connection, peer = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(answer + b" " + peer[0].encode())

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        self.stops.append(lambda: (server.shutdown(socket.SHUT_RDWR), server.close(), thread.join()))

    def ask(self, where: str, address: str, port: int) -> str:
        def run() -> str:
            with socket.create_connection((address, port), timeout=2) as connection:
                return connection.recv(100).decode()

        return ns.call_inside(where, run)

    def apply(self, commands: str) -> None:
        async def go() -> None:
            nft = Nft()
            try:
                await nft.apply(commands)
            finally:
                nft.close()

        ns.call_inside(self.path, lambda: asyncio.run(go()))


@pytest.fixture
def host():
    with ns.namespace() as path, ns.namespace() as one, ns.namespace() as two:
        found = Host(path)
        found.on(links.ensure_node, own="10.42.0.1", service_cidr="10.43.0.0/16", dns="10.43.0.10")
        found.add_pod(one, "10.42.0.11")
        found.add_pod(two, "10.42.0.12")
        found.serve("10.42.0.11", 8080, b"one")
        found.serve("10.42.0.12", 8080, b"two")
        yield found
        for stop in found.stops:
            stop()


def plan(*addresses: str, affinity: int = 0, front: Front = SERVICE, masquerade: bool = False) -> Plan:
    endpoints = tuple(Endpoint(address, 8080) for address in addresses)
    return Plan({front: Target(endpoints, masquerade, affinity)}, frozenset(addresses))


def test_cluster_ip_from_host_and_pod_spreads_over_endpoints(host):
    host.apply(whole(FRAME, tables_of(plan("10.42.0.11", "10.42.0.12"))))
    assert {host.ask(host.path, "10.43.0.5", 80) for _ in range(40)} == {"one 10.42.0.1", "two 10.42.0.1"}
    answers = {host.ask(host.pods["10.42.0.11"], "10.43.0.5", 80) for _ in range(40)}
    assert answers == {"one 10.42.0.1", "two 10.42.0.11"}  # to itself by hairpin, to the other with its own address


def test_node_port_on_every_local_address(host):
    host.apply(whole(FRAME, tables_of(plan("10.42.0.11", front=NODE_PORT, masquerade=True))))
    assert host.ask(host.path, "127.0.0.1", 30080) == "one 10.42.0.1"
    assert host.ask(host.path, "10.42.0.1", 30080) == "one 10.42.0.1"
    assert host.ask(host.pods["10.42.0.12"], "10.42.0.1", 30080).startswith("one ")


@pytest.mark.parametrize("port", [80, 81])
def test_what_nothing_translates_is_refused_at_once(host, port):
    host.apply(whole(FRAME, tables_of(Plan())))
    for where in (host.path, host.pods["10.42.0.11"]):
        with pytest.raises(ConnectionRefusedError):
            host.ask(where, "10.43.0.5", port)


def test_changes_are_differences_and_leave_the_rest(host):
    one, both = tables_of(plan("10.42.0.11")), tables_of(plan("10.42.0.11", "10.42.0.12"))
    host.apply(whole(FRAME, one))
    host.apply(difference(FRAME, one, both))
    assert {host.ask(host.path, "10.43.0.5", 80)[:3] for _ in range(40)} == {"one", "two"}
    two = tables_of(plan("10.42.0.12"))
    host.apply(difference(FRAME, both, two))
    assert {host.ask(host.path, "10.43.0.5", 80)[:3] for _ in range(20)} == {"two"}
    host.apply(difference(FRAME, two, tables_of(Plan())))
    with pytest.raises(ConnectionRefusedError):
        host.ask(host.path, "10.43.0.5", 80)
    assert difference(FRAME, two, two) == ""


def test_affinity_keeps_a_client_across_changes_and_a_full_rewrite(host):
    both = tables_of(plan("10.42.0.11", "10.42.0.12", affinity=60))
    host.apply(whole(FRAME, both))
    first = host.ask(host.path, "10.43.0.5", 80)
    host.apply(whole(FRAME, both))
    assert {host.ask(host.path, "10.43.0.5", 80) for _ in range(20)} == {first}
    gone, left = ("10.42.0.11", "two") if first.startswith("one") else ("10.42.0.12", "one")
    other = tables_of(plan(*({"10.42.0.11", "10.42.0.12"} - {gone}), affinity=60))
    host.apply(difference(FRAME, both, other))
    assert {host.ask(host.path, "10.43.0.5", 80)[:3] for _ in range(20)} == {left}
    host.apply(difference(FRAME, other, tables_of(Plan())))
    assert "a_" not in ns.inside(host.path, "nft list ruleset")


def test_a_crafted_packet_to_loopback_is_dropped(host):
    host.apply(whole(FRAME, tables_of(Plan())))
    assert 'iifname "ek*" ip daddr 127.0.0.0/8 drop' in ns.inside(host.path, "nft list ruleset")


def test_foreign_tables_stay_as_they_are(host):
    host.apply("add table ip foreign; add chain ip foreign c { type filter hook input priority 0 ; }; add rule ip foreign c counter accept")
    before = ns.inside(host.path, "nft list table ip foreign")
    host.apply(whole(FRAME, tables_of(plan("10.42.0.11"))))
    assert ns.inside(host.path, "nft list table ip foreign") == before


async def test_a_foreign_flush_is_noticed_and_our_own_changes_are_not():
    calls = []
    with ns.namespace() as path:

        def scenario() -> None:
            async def go() -> None:
                flushed = asyncio.Event()
                nft, watch = Nft(), TableWatch(FRAME.table, lambda: (calls.append("flushed"), flushed.set()))
                await nft.apply(whole(FRAME, tables_of(Plan())))
                watch.start()
                old, new = tables_of(plan("10.42.0.11")), tables_of(plan("10.42.0.12"))
                with watch.own_change():
                    await nft.apply(difference(FRAME, tables_of(Plan()), old))
                    await nft.apply(difference(FRAME, old, new))
                await asyncio.sleep(0)
                assert calls == []
                child = await asyncio.create_subprocess_exec("nft", "flush", "ruleset")
                await child.wait()
                async with asyncio.timeout(5):
                    await flushed.wait()
                watch.close()
                nft.close()

            asyncio.run(go())

        ns.call_inside(path, scenario)
    assert calls
