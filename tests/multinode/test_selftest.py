"""The overlay's self-test on sabotaged wires: what can be put right is, what can not is named; pods can transfer data in each case."""

import contextlib
import json
import socket
import threading
import time

import pytest

from edgekube.api.catalog import NODE
from edgekube.network.offload import tx_checksum
from tests.kit import netns as ns
from tests.kit.badwire import bad_wire
from tests.kit.overlay import OverlayHost, overlay
from tests.kit.requires import needs

pytestmark = needs("root", "netns", "busybox", "nft")

SIZE = 5 << 20


def transfer(here, there, address, *, size=SIZE, seconds=20):
    """Download `size` bytes over TCP from the pod `there` to the pod `here`; what arrived."""
    server = ns.call_inside(there, lambda: socket.create_server(("0.0.0.0", 5000)))

    def serve():
        with contextlib.suppress(OSError):
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"x" * size)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def ask():
        got = 0
        with socket.create_connection((address, 5000), timeout=seconds) as connection:
            while data := connection.recv(1 << 16):
                got += len(data)
        return got

    try:
        return ns.call_inside(here, ask)
    finally:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def condition(host):
    node = host.api.run(host.api.live.client.get(NODE, host.name))
    return next((entry for entry in node["status"].get("conditions", ()) if entry["type"] == "edgekube.io/OverlayHealthy"), None)


def until_reason(host, reason, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        found = condition(host)
        if found is not None and found["reason"] == reason:
            return found
        assert time.monotonic() < deadline, f"{reason} never came: {found}"
        time.sleep(0.05)


def report(host):
    path = host.run_dir / "network.json"
    return json.loads(path.read_text()) if path.exists() else {"peers": []}


def until_reported(host, reason, seconds=20):
    deadline = time.monotonic() + seconds
    while [peer["reason"] for peer in report(host)["peers"]] != [reason]:
        assert time.monotonic() < deadline, report(host)
        time.sleep(0.05)


def fill(net):
    one, two = net.hosts
    here, there = one.add_pod(), two.add_pod()
    return here, there, two.pods[there][0]


def test_a_good_path_passes_and_is_quiet_afterwards():
    with overlay(2) as net:
        here, there, address = fill(net)
        for host in net.hosts:
            assert until_reason(host, "PathsTested")["status"] == "True"
        assert report(net.hosts[0])["peers"][0]["reason"] == "Passed"
        assert report(net.hosts[0])["peers"][0]["mtu"] == 1450
        assert transfer(here, there, address) == SIZE


def test_a_hop_with_a_smaller_mtu_makes_routes_smaller():
    with overlay(2) as net:
        for host in net.hosts:
            until_reason(host, "PathsTested")
        ns.inside(net.wire, "ip link set p1eth0 mtu 1400")
        for host in net.hosts:
            host.sh(f"ip link del {host.device}")  # look again
        here, there, address = fill(net)
        for host in net.hosts:
            found = until_reason(host, "SmallerMTU")
            assert found["status"] == "True"
        mtu = report(net.hosts[0])["peers"][0]["mtu"]
        assert 1330 <= mtu <= 1354
        assert f"mtu {mtu}" in net.hosts[0].sh("ip route show 10.42.1.0/24")
        assert transfer(here, there, address) == SIZE


def test_a_blocked_port_is_named_and_noticed_when_it_opens():
    with overlay(2) as net:
        one, two = net.hosts
        until_reason(one, "PathsTested")
        ns.inside(net.wire, "nft add table bridge t; nft add chain bridge t c \"{ type filter hook forward priority 0; }\"; nft add rule bridge t c udp dport 8472 drop")
        two.sh(f"ip link del {two.device}")
        one.sh(f"ip link del {one.device}")
        found = until_reason(one, "PortBlocked")
        assert found["status"] == "False"
        assert "node n1" in found["message"]
        assert "UDP port 8472 is blocked" in found["message"]
        assert "192.168.50.11" in found["message"]
        ns.inside(net.wire, "nft delete table bridge t")
        until_reason(one, "PathsTested")


def test_a_machine_that_is_off_is_no_fault_of_the_overlay():
    with overlay(2) as net:
        one, _ = net.hosts
        until_reason(one, "PathsTested")
        ns.inside(net.wire, "ip link set p1eth0 down")
        one.sh(f"ip link del {one.device}")
        until_reported(one, "NodeUnreachable")
        assert condition(one)["status"] == "True"


def test_an_edgekube_that_is_not_running_is_no_fault_either():
    with overlay(2) as net:
        one, two = net.hosts
        until_reason(one, "PathsTested")
        two.stop()
        one.sh(f"ip link del {one.device}")
        until_reported(one, "NoAnswer")
        assert ns.call_inside(one.netns, lambda: tx_checksum(one.device))  # what did not help is undone
        two.start()
        until_reported(one, "Passed")


@pytest.fixture
def hosts():
    with overlay(0) as net, ns.namespace() as one, ns.namespace() as two:
        yield net, one, two


def test_wrong_checksums_are_made_right(hosts):
    net, one, two = hosts
    with bad_wire(one, two, ("192.168.50.10/24", "192.168.50.11/24")) as wire, contextlib.ExitStack() as stack:
        for number, netns in enumerate((one, two)):
            host = OverlayHost(net.api, f"n{number}", netns, number, ranges=(f"10.42.{number}.0/24",), config={})
            stack.callback(host.close)
            net.hosts.append(host.start())
        here, there, address = fill(net)
        for host in net.hosts:
            assert until_reason(host, "ChecksumOffloadOff", 40)["status"] == "True"
            assert not ns.call_inside(host.netns, lambda host=host: tx_checksum(host.device))
        assert wire.dropped > 0
        assert transfer(here, there, address) == SIZE
