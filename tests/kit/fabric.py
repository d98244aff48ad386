"""The wires between machines: LANs joined by a router, NAT boxes, and everything that happens to wires.

    with fabric() as net:
        home, office = net.lan("10.99.1.0/24"), net.lan("10.99.2.0/24"); shed = net.lan("192.168.7.0/24", nat=True)
        a, b, c = net.machine("a", home), net.machine("b", office), net.machine("c", shed)
        net.block(a, b); net.drop(a, b, percent=30); net.heal()
        net.unplug(a); net.plug(a); net.renumber(a, "10.99.1.77"); net.renumber_lan(home, "10.98.0.0/24"); net.uplink(a, office)

LANs are bridges in one namespace that routes between them; the address .1 of each is the gateway. A NAT LAN sits behind a router of its own
which lets nothing in that was not asked for from inside. Faults are rules on bridge ports, so they follow a machine whatever its address is.
"""

import contextlib
import ipaddress
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.machine import Machine
from tests.kit.netns import sh


@dataclass(eq=False)
class Lan:
    """A bridge: `netns` is the fabric's own, or the NAT router's."""

    netns: str
    bridge: str
    subnet: ipaddress.IPv4Network
    port: str = ""  # of the NAT router on its own uplink: faults of machines behind it act there
    given: int = 9  # the last address handed out
    names: dict[str, str] = field(default_factory=dict)

    @property
    def gateway(self) -> str:
        return str(self.subnet[1])

    def next(self) -> str:
        self.given += 1
        return str(self.subnet[self.given])


@dataclass(eq=False)
class Cable:
    """One interface of a machine."""

    lan: Lan
    port: str  # the end on the bridge
    link: str  # the end in the machine
    address: str
    route: bool  # whether the machine has its default route here


class Fabric:
    """See the module."""

    def __init__(self, base: Path) -> None:
        self.id = uuid.uuid4().hex[:5]
        self.netns = f"ekf-{self.id}"
        self.base = base
        self.machines: dict[str, Machine] = {}
        self.cables: dict[str, list[Cable]] = {}
        self.lans: list[Lan] = []
        self._namespaces = [self.netns]
        self._faults: dict[tuple[str, str], int] = {}  # (from, to) -> percent lost
        self._rules: list[str] = []
        self._ports = 0
        self._netns(self.netns)

    def _netns(self, name: str) -> None:
        sh(f"ip netns add {name} && ip -n {name} link set lo up && ip netns exec {name} sysctl -qw net.ipv4.ip_forward=1")

    def _port(self) -> str:
        self._ports += 1
        return f"p{self._ports}"

    # making

    def lan(self, subnet: str, *, nat: bool = False) -> Lan:
        """A new LAN; with `nat` behind a router whose uplink is in the first LAN."""
        name = f"br{len(self.lans)}"
        found = self._nat_lan(subnet, name) if nat else Lan(self.netns, name, ipaddress.ip_network(subnet))
        sh(f"ip -n {found.netns} link add {name} type bridge forward_delay 0 && ip -n {found.netns} link set {name} up")
        sh(f"ip -n {found.netns} addr add {found.gateway}/{found.subnet.prefixlen} dev {name}")
        self.lans.append(found)
        return found

    def _nat_lan(self, subnet: str, bridge: str) -> Lan:
        outer, port, router = self.lans[0], self._port(), f"ekf-{self.id}-{len(self.lans)}"
        self._namespaces.append(router)
        self._netns(router)
        address = outer.next()
        sh(f"ip -n {self.netns} link add {port} type veth peer name wan netns {router}")
        sh(f"ip -n {self.netns} link set {port} master {outer.bridge} up && ip -n {router} link set wan up")
        sh(f"ip -n {router} addr add {address}/{outer.subnet.prefixlen} dev wan && ip -n {router} route add default via {outer.gateway}")
        nft(
            router,
            "table ip nat { chain post { type nat hook postrouting priority 100; oifname wan masquerade\n }\n"
            "chain in { type filter hook input priority 0; iifname wan ct state new drop\n }\n"
            "chain through { type filter hook forward priority 0; iifname wan ct state new drop\n }\n}",
        )
        return Lan(router, bridge, ipaddress.ip_network(subnet), port=port)

    def machine(self, name: str, lan: Lan, *, address: str = "", gateway: bool = True, **options: str) -> Machine:
        """A machine with a cable to `lan`, booted. `gateway=False`: no default route."""
        place = self.base / name
        place.mkdir(mode=0o700)
        found = Machine(name, place, **options)
        self.machines[name] = found
        self.cables[name] = [Cable(lan, self._port(), "eth0", address or lan.next(), gateway)]
        found.on_boot.append(lambda: self._connect(found))
        found.boot()
        return found

    def uplink(self, machine: Machine, lan: Lan, *, address: str = "", route: bool = False) -> Cable:
        """One more cable: eth1, eth2..."""
        cables = self.cables[machine.name]
        cable = Cable(lan, self._port(), f"eth{len(cables)}", address or lan.next(), route)
        cables.append(cable)
        self._lay(machine, cable)
        return cable

    def _connect(self, machine: Machine) -> None:
        for cable in self.cables[machine.name]:
            self._lay(machine, cable)

    def _lay(self, machine: Machine, cable: Cable) -> None:
        lan = cable.lan
        sh(f"ip -n {lan.netns} link del {cable.port}", check=False)  # of a machine that was switched off a moment ago
        sh(f"ip -n {lan.netns} link add {cable.port} type veth peer name {cable.link} netns {machine.pid}")
        sh(f"ip -n {lan.netns} link set {cable.port} master {lan.bridge} up")
        machine.run("ip", "link", "set", cable.link, "up")
        self._number(machine, cable)

    def _number(self, machine: Machine, cable: Cable) -> None:
        machine.run("ip", "addr", "add", f"{cable.address}/{cable.lan.subnet.prefixlen}", "brd", "+", "dev", cable.link)
        if cable.route:
            machine.run("ip", "route", "replace", "default", "via", cable.lan.gateway, "dev", cable.link)

    # what happens to wires

    def address(self, machine: Machine) -> str:
        """Of its first cable."""
        return self.cables[machine.name][0].address

    def unplug(self, machine: Machine, link: str = "eth0") -> None:
        """The cable is out: no carrier."""
        cable = self._cable(machine, link)
        sh(f"ip -n {cable.lan.netns} link set {cable.port} down")

    def plug(self, machine: Machine, link: str = "eth0") -> None:
        cable = self._cable(machine, link)
        sh(f"ip -n {cable.lan.netns} link set {cable.port} up")

    def renumber(self, machine: Machine, address: str = "", link: str = "eth0") -> str:
        """Another address, live, as a DHCP server gives one: the old one goes first."""
        cable = self._cable(machine, link)
        machine.run("ip", "-4", "addr", "flush", "dev", cable.link)
        cable.address = address or cable.lan.next()
        self._number(machine, cable)
        return cable.address

    def renumber_lan(self, lan: Lan, subnet: str) -> None:
        """Another subnet for the LAN and everybody in it."""
        sh(f"ip -n {lan.netns} addr flush dev {lan.bridge}")
        lan.subnet, lan.given = ipaddress.ip_network(subnet), 9
        sh(f"ip -n {lan.netns} addr add {lan.gateway}/{lan.subnet.prefixlen} dev {lan.bridge}")
        for name, cables in self.cables.items():
            for cable in cables:
                if cable.lan is lan:
                    self.renumber(self.machines[name], link=cable.link)

    def move(self, machine: Machine, lan: Lan, link: str = "eth0") -> str:
        """Carry the machine to another LAN: the cable comes out, and goes in there."""
        cable = self._cable(machine, link)
        sh(f"ip -n {cable.lan.netns} link del {cable.port}")
        cable.lan, cable.address = lan, lan.next()
        self._lay(machine, cable)
        self._write_faults()
        return cable.address

    def block(self, one: Machine, other: Machine) -> None:
        """Nothing passes between the two, in both directions."""
        self.drop(one, other, percent=100)

    def unblock(self, one: Machine, other: Machine) -> None:
        self.drop(one, other, percent=0)

    def drop(self, one: Machine, other: Machine, *, percent: int, both: bool = True) -> None:
        """Lose this many of a hundred packets from `one` to `other` (and back)."""
        for pair in ((one.name, other.name), (other.name, one.name))[: 2 if both else 1]:
            self._faults[pair] = percent
        self._write_faults()

    def rule(self, text: str) -> None:
        """One more rule for everything that passes a bridge, in nft's words for the bridge family, until `heal`."""
        self._rules.append(text)
        self._write_faults()

    def heal(self) -> None:
        """No faults; cables that are out stay out."""
        self._faults, self._rules = {}, []
        self._write_faults()

    def _write_faults(self) -> None:
        marks = {name: number for number, name in enumerate(self.cables, start=1)}
        entry = [f'iifname "{port}" meta mark set {marks[name]}' for name in marks for port in self._outer_ports(name)]
        leave = list(self._rules)
        for (one, other), percent in self._faults.items():
            chance = "" if percent >= 100 else f"numgen random mod 100 < {percent} "
            leave += [f'meta mark {marks[one]} oifname "{port}" {chance}drop' for port in self._outer_ports(other) if percent]
        nft(
            self.netns,
            "table bridge faults\ndelete table bridge faults\ntable bridge faults {\n"
            "chain in { type filter hook prerouting priority -300;\n" + "\n".join(entry) + "\n}\n"
            "chain out { type filter hook postrouting priority 300;\n" + "\n".join(leave) + "\n}\n}\n",
        )

    def _outer_ports(self, name: str) -> set[str]:
        return {cable.lan.port or cable.port for cable in self.cables[name]}

    def _cable(self, machine: Machine, link: str) -> Cable:
        return next(cable for cable in self.cables[machine.name] if cable.link == link)

    def close(self) -> None:
        for machine in self.machines.values():
            machine.power_off()
        for name in self._namespaces:
            sh(f"ip netns del {name}", check=False)


def nft(netns: str, text: str) -> None:
    """Load a ruleset in a named namespace."""
    sh(f"ip netns exec {netns} nft -f - <<'END'\n{text}\nEND")


@contextlib.contextmanager
def fabric() -> Iterator[Fabric]:
    """Wires without machines yet; at the end all machines are off and everything is gone, their disks too."""
    base = Path("/tmp") / f"ekm-{uuid.uuid4().hex[:6]}"
    base.mkdir(mode=0o700)
    found = Fabric(base)
    try:
        yield found
    finally:
        found.close()
        if os.environ.get("EDGEKUBE_KEEP"):
            print(f"kept: {base}")
        else:
            shutil.rmtree(base, ignore_errors=True)
