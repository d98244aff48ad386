"""Upstream's network policy suite (test/e2e/network/netpol) against a real kernel: nine pods in three namespaces, all pairs, TCP and UDP.

What is expected comes from a direct reading of upstream's text (world.py), what is found from packets.
"""

import asyncio
import json
import random
import socket
import threading
from dataclasses import replace

import pytest

from edgekube.api.types import Key
from edgekube.netpolicy.ruleset import tables_of, whole
from edgekube.proxy.backend import Node
from edgekube.proxy.nftables import NftablesBackend
from tests.kit import netns as ns
from tests.kit.requires import needs
from tests.unit.netpolicy.machine import FRAME, OWN, PROBES, TABLE, Machine, machine
from tests.unit.netpolicy.world import Pod, World, xyz

pytestmark = needs("root", "netns", "nft")

A = {"matchLabels": {"pod": "a"}}
Y = {"matchLabels": {"ns": "y"}}
YZ = {"matchExpressions": [{"key": "ns", "operator": "In", "values": ["y", "z"]}]}
NOT_X = {"matchExpressions": [{"key": "ns", "operator": "NotIn", "values": ["x"]}]}
DENY_IN, DENY_OUT = {"policyTypes": ["Ingress"]}, {"policyTypes": ["Egress"]}


def from_(*peers, ports=()):
    return {"podSelector": A, "ingress": [{"from": list(peers)} | ({"ports": list(ports)} if ports else {})]}


def to(*peers, ports=()):
    return {"podSelector": A, "policyTypes": ["Egress"], "egress": [{"to": list(peers)} | ({"ports": list(ports)} if ports else {})]}


TCP81, UDP81 = {"port": 81}, {"port": 81, "protocol": "UDP"}


@pytest.fixture(scope="module")
def nine():
    world = xyz()
    with machine(world) as found:
        yield world, found


@pytest.fixture
def lab(nine):
    world, found = nine
    yield world, found
    for key in list(world.policies):
        world.policy(*key, None)
    for space in "xyz":
        world.space(space, {"ns": space, "kubernetes.io/metadata.name": space})
        for name in "abc":
            world.pods[Key(space, name)].labels = {"pod": name}
            world.put(world.pods[Key(space, name)])
    found.apply(world)


def check(world: World, found: Machine) -> int:
    """Every pair of pods, every port; how many are denied."""
    pods = list(world.pods.values())
    answers, threads = {}, []
    for source in pods:
        expected = {(t.address, protocol, n) for t in pods for protocol, n in PROBES if world.allowed(source, t, protocol, n)}

        def ask(source=source, expected=expected):
            answers[source.key] = (found.reach(source.address, [t.address for t in pods], expected), expected)

        threads.append(threading.Thread(target=ask))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for key, (seen, expected) in answers.items():
        assert seen == expected, f"{key}: lost {sorted(expected - seen)}, leaked {sorted(seen - expected)}"
    assert len(answers) == len(pods)
    return sum(len(pods) * len(PROBES) - len(seen) for seen, _ in answers.values())


CASES = {
    "deny ingress of a namespace": [("x", DENY_IN)],
    "deny all of a namespace": [("x", {"policyTypes": ["Ingress", "Egress"]})],
    "deny egress of a namespace": [("x", DENY_OUT)],
    "deny ingress of one pod": [("x", {"podSelector": A})],
    "allow all ingress": [("x", {"ingress": [{}]})],
    "allow from a pod of the same namespace": [("x", from_({"podSelector": {"matchLabels": {"pod": "b"}}}))],
    "allow from a namespace": [("x", from_({"namespaceSelector": Y}))],
    "allow from namespaces by expression": [("x", from_({"namespaceSelector": YZ}))],
    "allow from all namespaces but one": [("x", from_({"namespaceSelector": NOT_X}))],
    "allow from all namespaces": [("x", from_({"namespaceSelector": {}}))],
    "allow from pod and namespace": [("x", from_({"namespaceSelector": NOT_X, "podSelector": {"matchLabels": {"pod": "b"}}}))],
    "allow from pod or namespace": [("x", from_({"namespaceSelector": Y}, {"podSelector": {"matchLabels": {"pod": "b"}}}))],
    "allow by expressions": [("x", from_({"namespaceSelector": {}, "podSelector": {"matchExpressions": [{"key": "pod", "operator": "In", "values": ["b", "c"]}]}}))],
    "allow to a pod": [("x", to({"podSelector": {"matchLabels": {"pod": "b"}}}))],
    "allow to a namespace on a port": [("x", to({"namespaceSelector": Y}, ports=[TCP81]))],
    "a port of one protocol": [("x", from_({"namespaceSelector": {}}, ports=[UDP81]))],
    "a whole protocol": [("x", from_(ports=[{"protocol": "UDP"}]))],
    "ports and no peers": [("x", {"podSelector": A, "ingress": [{"ports": [TCP81]}]})],
    "named port": [("x", from_({"namespaceSelector": Y}, ports=[{"port": "serve-81-tcp"}]))],
    "named port of the wrong protocol": [("x", from_(ports=[{"port": "serve-81-tcp", "protocol": "UDP"}]))],
    "named port in egress": [("x", to({"namespaceSelector": Y}, ports=[{"port": "serve-80-udp", "protocol": "UDP"}]))],
    "named port in egress to anybody": [("x", to(ports=[{"port": "serve-80-tcp"}]))],
    "named port in egress to a range": [("x", to({"ipBlock": {"cidr": "10.42.0.0/24", "except": ["10.42.0.20/30"]}}, ports=[{"port": "serve-80-tcp"}]))],
    "range of ports": [("x", from_(ports=[{"port": 81, "endPort": 90}])), ("y", to(ports=[{"port": 1, "endPort": 80}]))],
    "policies add up": [("x", from_({"namespaceSelector": Y}, ports=[TCP81])), ("x", from_(ports=[{"port": 80}])), ("x", DENY_IN)],
    "allow all wins over deny": [("x", DENY_IN), ("x", {"ingress": [{}]})],
    "both ends must agree": [("x", to({"namespaceSelector": Y})), ("y", from_({"namespaceSelector": {"matchLabels": {"ns": "z"}}}))],
    "ingress and egress in one policy": [("x", from_({"namespaceSelector": Y}) | {"egress": [{"to": [{"podSelector": {}}]}]})],
    "range of addresses": [("x", to({"ipBlock": {"cidr": "10.42.0.20/31"}}))],
    "range of addresses with exceptions": [("x", to({"ipBlock": {"cidr": "10.42.0.0/24", "except": ["10.42.0.20/30"]}}))],
    "an excepted range that another policy allows": [
        ("x", to({"ipBlock": {"cidr": "10.42.0.0/24", "except": ["10.42.0.20/30"]}})), ("x", to({"ipBlock": {"cidr": "10.42.0.20/30"}})),
    ],
    "ingress from a range": [("x", from_({"ipBlock": {"cidr": "10.42.0.30/32"}}))],
    "any address": [("x", to({"ipBlock": {"cidr": "0.0.0.0/0"}}))],
    "SCTP says nothing of TCP": [("x", from_(ports=[{"protocol": "SCTP", "port": 80}]))],
    "every namespace denies all": [(space, {"policyTypes": ["Ingress", "Egress"]}) for space in "xyz"],
}  # fmt: skip


DENY_NOTHING = (
    "allow all ingress", "allow from all namespaces", "allow all wins over deny", "any address", "an excepted range that another policy allows",
)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_upstreams_cases(lab, name):
    world, found = lab
    for number, (space, spec) in enumerate(CASES[name]):
        world.policy(space, f"p{number}", spec)
    found.apply(world)
    assert (check(world, found) > 0) == (name not in DENY_NOTHING)


def test_policies_labels_and_namespaces_change(lab):
    """deny -> allow -> deny, updates, stale rules: each by the difference alone."""
    world, found = lab
    world.policy("x", "p", DENY_IN)
    found.apply(world)
    denied = check(world, found)
    world.policy("x", "allow", {"ingress": [{}]})
    found.apply(world)
    assert check(world, found) == 0
    world.policy("x", "allow", None)
    found.apply(world)
    assert check(world, found) == denied
    world.policy("x", "p", from_({"namespaceSelector": Y, "podSelector": A}))
    found.apply(world)
    before = check(world, found)
    world.pods[Key("y", "a")].labels = {"pod": "other"}  # a peer no more
    world.put(world.pods[Key("y", "a")])
    found.apply(world)
    assert check(world, found) == before + len(PROBES)
    world.space("z", {"ns": "y"})  # z counts as y now
    found.apply(world)
    assert check(world, found) == before
    world.pods[Key("x", "a")].labels = {}  # isolated no more
    world.put(world.pods[Key("x", "a")])
    found.apply(world)
    assert check(world, found) == 0
    world.policy("x", "p", {})
    found.apply(world)
    check(world, found)
    commands = found.apply(world)
    assert commands == ""


def test_the_node_reaches_its_pods_and_is_reached_only_by_those_that_may(lab):
    world, found = lab
    found.serve(OWN[4], found.path)
    a, b = world.pods[Key("x", "a")].address, world.pods[Key("x", "b")].address
    everything = {(OWN[4], protocol, n) for protocol, n in PROBES}
    world.policy("x", "p", {"podSelector": A, "policyTypes": ["Ingress", "Egress"]})
    found.apply(world)
    assert found.reach("", [a], {(a, p, n) for p, n in PROBES}, where=found.path) == {(a, p, n) for p, n in PROBES}  # probes, host processes
    assert found.reach(a, [OWN[4]], set()) == set()
    assert found.reach(b, [OWN[4]], everything) == everything
    world.policy("x", "p", to({"ipBlock": {"cidr": f"{OWN[4]}/32"}}, ports=[UDP81]))
    found.apply(world)
    assert found.reach(a, [OWN[4]], {(OWN[4], "UDP", 81)}) == {(OWN[4], "UDP", 81)}


def test_services_are_judged_by_the_pods_behind_them(lab):
    """After the translation and before masquerading: also a pod that reaches itself through its Service."""
    world, found = lab
    a, b = world.pods[Key("x", "a")].address, world.pods[Key("y", "b")].address
    nat = f"""
        add table ip nat; add chain ip nat pre {{ type nat hook prerouting priority -100 ; }}
        add chain ip nat post {{ type nat hook postrouting priority 100 ; }}
        add rule ip nat pre ip daddr 10.43.0.5 dnat to {a}
        add rule ip nat pre ip daddr 10.43.0.6 dnat to {b}
        add rule ip nat post ct status dnat masquerade
    """
    found.load(nat.replace("; add", "\nadd"))
    try:
        ns.inside(found.path, "ip route replace 10.43.0.0/16 dev lo")
        world.policy("x", "p", {"podSelector": A, "policyTypes": ["Ingress", "Egress"], "egress": [{"to": [{"namespaceSelector": Y}], "ports": [TCP81]}]})
        found.apply(world)
        itself = {("10.43.0.5", p, n) for p, n in PROBES}
        assert found.reach(a, ["10.43.0.5", "10.43.0.6"], itself | {("10.43.0.6", "TCP", 81)}) == itself | {("10.43.0.6", "TCP", 81)}
        assert found.reach(b, ["10.43.0.5"], set()) == set()
    finally:
        found.load("delete table ip nat")


def test_what_a_translator_in_the_host_sends_on_is_judged_as_well(lab):
    """IPVS takes Service addresses in the input hook and sends from the output hook: here a socket with somebody else's address does."""
    world, found = lab
    a, b = world.pods[Key("x", "a")].address, world.pods[Key("y", "b")].address
    for dns in ("10.43.0.10", "10.43.0.9"):
        ns.inside(found.path, f"ip addr replace {dns}/32 dev lo")
        found.serve(dns, found.path)

    def sent_on(source):
        """Whether a datagram that the host sends with that source reaches a."""

        def make():
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            one.setsockopt(socket.SOL_IP, 19, 1)  # IP_TRANSPARENT
            one.bind((source, 0))
            return one

        inbox.settimeout(0.4)
        try:
            with ns.call_inside(found.path, make) as one:
                one.sendto(b"?", (a, 90))
            return inbox.recvfrom(10)[1][0] == source
        except (PermissionError, TimeoutError):  # the sender itself hears of a drop in the output hook
            return False

    with ns.call_inside(found.pods[a], lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as inbox:
        inbox.bind((a, 90))
        assert sent_on(b)
        world.policy("x", "p", from_({"namespaceSelector": {"matchLabels": {"ns": "z"}}}) | {"policyTypes": ["Ingress", "Egress"]})
        found.apply(world)
        assert not sent_on(b)
        assert sent_on(world.pods[Key("z", "b")].address)
        assert sent_on(OWN[4])
    service = {("10.43.0.9", protocol, number) for protocol, number in PROBES}
    assert found.reach(a, ["10.43.0.9", "10.43.0.10"], service) == service  # judged once it is translated; DNS is the node's own


def connected(found: Machine, source: str, target: str) -> socket.socket:
    one = ns.call_inside(found.pods[source], lambda: socket.create_connection((target, 80), timeout=2))
    one.settimeout(0.4)
    return one


def echo(one: socket.socket) -> bool:
    one.send(b"?")
    try:
        return one.recv(1) == b"?"
    except TimeoutError:
        return False


def test_an_open_connection_ends_with_its_permission_and_replies_need_none(lab):
    world, found = lab
    a, b = world.pods[Key("x", "a")].address, world.pods[Key("y", "b")].address
    with connected(found, b, a) as incoming, connected(found, a, b) as outgoing:
        assert echo(incoming)
        assert echo(outgoing)
        world.policy("x", "p", {"podSelector": A})  # no ingress: what a has opened itself goes on
        found.apply(world)
        assert not echo(incoming)
        assert echo(outgoing)
        world.policy("x", "p", {"podSelector": A, "ingress": [{}], "policyTypes": ["Ingress", "Egress"]})
        found.apply(world)
        incoming.settimeout(5)  # what was lost is sent again
        assert incoming.recv(1) == b"?"
        assert not echo(outgoing)


def test_icmp_passes_with_all_ports_only(lab):
    world, found = lab
    a, b = world.pods[Key("x", "a")].address, world.pods[Key("y", "b")].address

    def ping():
        def ask():
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as one:
                one.settimeout(0.5)
                one.sendto(b"\x08\x00\xf7\xfd\x00\x01\x00\x01", (a, 0))  # echo request 1 of 1, with its checksum
                try:
                    return one.recv(100)[20] == 0
                except TimeoutError:
                    return False

        return ns.call_inside(found.pods[b], ask)

    world.policy("x", "p", from_(ports=[{"port": 80}]))
    found.apply(world)
    assert not ping()
    world.policy("x", "p", from_({"namespaceSelector": Y}))
    found.apply(world)
    assert ping()


def test_the_whole_table_replaces_what_was_there_without_a_gap(lab):
    world, found = lab
    world.policy("x", "p", from_({"namespaceSelector": Y}))
    found.apply(world)
    found.load(f"add set inet {TABLE} p4_stale {{ type ipv4_addr ; }}\nadd chain inet {TABLE} in4_stale\nadd table ip foreign")
    before = ns.inside(found.path, f"nft list table inet {TABLE}").replace(" packets 0 bytes 0", "")
    names = [line.split()[1] for line in before.splitlines() if line.strip().startswith(("set ", "chain "))]
    chains = [name for name in names if name in before and f"chain {name}" in before]
    found.load(whole(FRAME, tables_of(found.model.plan()), chains=chains, sets=[name for name in names if f"set {name} " in before]))
    after = ns.inside(found.path, f"nft list table inet {TABLE}")
    assert "stale" not in after
    assert "table ip foreign" in ns.inside(found.path, "nft list tables")
    found.load("delete table ip foreign")
    check(world, found)


def test_both_families():
    world = World()
    world.space("x", {})
    for number, name in enumerate("abc"):
        world.put(Pod("x", name, f"10.42.0.{20 + number}", {"pod": name}, more=(f"fd42::{20 + number}",)))
    with machine(world) as found:
        found.serve(OWN[6], found.path)
        everything = {("fd42::20", p, n) for p, n in PROBES}
        world.policy("x", "p", from_({"podSelector": {"matchLabels": {"pod": "b"}}}) | {"policyTypes": ["Ingress", "Egress"]})
        found.apply(world)

        def ask(pod, target, expected):
            return found.reach("", [target], expected, where=found.pods[pod])

        assert ask("10.42.0.21", "fd42::20", everything) == everything
        assert ask("10.42.0.22", "fd42::20", set()) == set()
        assert ask("10.42.0.20", OWN[6], set()) == set()
        world.policy("x", "p", from_({"ipBlock": {"cidr": "fd42::22/127"}}))
        found.apply(world)
        assert ask("10.42.0.21", "fd42::20", set()) == set()
        assert ask("10.42.0.22", "fd42::20", everything) == everything
        assert ask("10.42.0.22", "10.42.0.20", set()) == set()
        check(world, found)


def listed(found: Machine, table: str) -> dict[str, object]:
    """What the kernel has: rules of each chain, elements of each set and map."""
    content: dict[str, object] = {}
    for entry in json.loads(ns.inside(found.path, f"nft -j list table inet {table}"))["nftables"]:
        for kind in ("set", "map"):
            if one := entry.get(kind):
                content[one["name"]] = sorted(map(str, one.get("elem", ())))
        if one := entry.get("chain"):
            content.setdefault(one["name"], [])
        if one := entry.get("rule"):
            content[one["chain"]].append(str(one["expr"]).replace("'handle'", ""))
    return content


@pytest.mark.parametrize("seed", range(3))
def test_a_walk_of_differences_ends_where_a_whole_table_does(lab, seed):
    world, found = lab
    choose = random.Random(seed)
    cases = [policy for case in CASES.values() for policy in case]
    for _ in range(40):
        space, name = choose.choice("xyz"), choose.choice("abc")
        what = choose.randrange(5)
        if what == 0:
            world.space(space, {"ns": choose.choice("xyz")})
        elif what == 1:
            pod = world.pods[Key(space, name)]
            pod.labels = {"pod": choose.choice("abc")}
            world.put(pod)
        elif what == 2:
            pod = Pod(space, f"far-{choose.randrange(4)}", f"10.42.9.{choose.randrange(9)}", {"pod": choose.choice("abc")}, node="far")
            world.put(pod) if pod.key not in world.pods else world.drop(pod.key)
        elif what == 3:
            world.policy(space, f"p{choose.randrange(4)}", choose.choice(cases)[1])
        else:
            world.policy(space, f"p{choose.randrange(4)}", None)
        found.apply(world)
    found.load(whole(replace(FRAME, table="fresh"), tables_of(found.model.plan())))
    walked, fresh = listed(found, TABLE), listed(found, "fresh")
    found.load("delete table inet fresh")
    for key in [key for key, pod in world.pods.items() if pod.node == "far"]:
        world.drop(key)
    assert walked == fresh


def test_an_address_of_another_pod_cannot_be_used_in_ipv6_either():
    """Policies judge addresses: a pod must not have any but its own. (IPv4: the reverse path filter of its link.)"""
    world = World()
    world.put(Pod("x", "a", "10.42.0.20", {}, more=("fd42::20",)))
    with machine(world) as found:

        async def proxy():
            await NftablesBackend(Node(instance="test", pods=("fd42::/16",), services=("fd43::/108",))).replace({})

        ns.call_inside(found.path, lambda: asyncio.run(proxy()))
        pod, other = found.pods["10.42.0.20"], "fd42::21"
        ns.inside(pod, f"ip -6 addr add {other}/128 dev lo nodad")
        listener = ns.call_inside(found.path, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))

        def arrives(source):
            """Whom the host sees when the pod sends from an address; "" if nothing comes."""
            with ns.call_inside(pod, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as one:
                one.bind((source, 0))
                one.sendto(b"?", (OWN[6], 80))
            try:
                return listener.recvfrom(10)[1][0]
            except TimeoutError:
                return ""

        with listener:
            listener.bind((OWN[6], 80))
            listener.settimeout(0.4)
            assert arrives("fd42::20") == "fd42::20"
            assert arrives(other) == ""
            found.load("flush chain ip6 edgekube_test spoof")
            assert arrives(other) == other  # it is that rule that stops it
