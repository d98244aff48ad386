"""A node's network for tests of the service proxy: a host namespace with two pods, a pod of another node, and a client outside.

    one 10.42.0.11, two 10.42.0.12 --- host (10.42.0.1, 192.0.2.1) --- outside 192.0.2.10
                                         |
                                        far 10.42.1.11 (answers only what comes from the host's 10.99.0.1 or from pods)

The same with IPv6: fd42::b, fd42::c, fd42:1::b, 2001:db8::a. Pods serve TCP and UDP on 8080 and answer their name and the client's address.
The host runs a loop of its own in its namespace: `host.do(lambda: coroutine)`.
"""

import asyncio
import contextlib
import socket
import threading

from edgekube.proxy.model import ANY4, Endpoint, Front, Target
from tests.kit import netns as ns

ADDRESSES = {
    "one": ("10.42.0.11", "fd42::b"),
    "two": ("10.42.0.12", "fd42::c"),
    "far": ("10.42.1.11", "fd42:1::b"),
    "outside": ("192.0.2.10", "2001:db8::a"),
    "host": ("192.0.2.1", "2001:db8::1"),
}
OWN = ("10.42.0.1", "fd42::1")
PODS, SERVICES = ("10.42.0.0/16", "fd42::/16"), ("10.43.0.0/16", "fd43::/108")
PORT = 8080


class Host:
    """See the module. `paths` has the namespaces by name."""

    def __init__(self, paths: dict[str, str]) -> None:
        self.paths, self.stops = paths, []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=ns.call_inside, args=(paths["host"], self._loop.run_forever))
        self._thread.start()

    def do(self, make, seconds=60):
        """The result of a coroutine that runs in the host's namespace."""

        async def run():
            return await make()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(seconds)

    def close(self) -> None:
        for stop in self.stops:
            stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def ask(self, where: str, address: str, port: int, protocol: str = "tcp", *, seconds: float = 2, source: str = "") -> str:
        """What answers: 'name address-of-the-client'."""
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM

        def run() -> str:
            with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as client:
                client.settimeout(seconds)
                if source:
                    client.bind((source, 0))
                client.connect((address, port))
                if protocol == "udp":
                    client.send(b"?")
                return client.recv(200).decode()

        return ns.call_inside(self.paths[where], run)

    def names(self, where: str, address: str, port: int, protocol: str = "tcp", tries: int = 40) -> set[str]:
        """Which pods answer."""
        return {self.ask(where, address, port, protocol).split()[0] for _ in range(tries)}

    def dropped(self, where: str, address: str, port: int, protocol: str = "tcp") -> bool:
        try:
            self.ask(where, address, port, protocol, seconds=0.4)
        except TimeoutError:
            return True
        return False

    def refused(self, where: str, address: str, port: int, protocol: str = "tcp") -> bool:
        try:
            self.ask(where, address, port, protocol)
        except ConnectionRefusedError:
            return True
        return False

    def run(self, command: str, where: str = "host") -> str:
        return ns.inside(self.paths[where], command)

    def serve(self, name: str, port: int = PORT) -> None:
        def sockets():
            tcp = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
            udp = [socket.socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET, socket.AF_INET6)]
            for server, address in zip(udp, ADDRESSES[name], strict=True):
                server.bind((address, port))
            return tcp, udp

        tcp, udp = ns.call_inside(self.paths[name], sockets)

        def stream() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, peer = tcp.accept()
                    with connection:
                        connection.sendall(f"{name} {_plain(peer[0])}".encode())

        def datagrams(server) -> None:
            with contextlib.suppress(OSError):
                while True:
                    data, peer = server.recvfrom(100)
                    if data == b"":
                        return
                    server.sendto(f"{name} {peer[0]}".encode(), peer)

        threads = [threading.Thread(target=stream, daemon=True)]
        threads += [threading.Thread(target=datagrams, args=(server,), daemon=True) for server in udp]
        for thread in threads:
            thread.start()

        def stop() -> None:
            tcp.shutdown(socket.SHUT_RDWR)
            tcp.close()
            ns.call_inside(self.paths[name], lambda: [_poke(server) for server in udp])
            for thread in threads:
                thread.join()
            for server in udp:
                server.close()

        self.stops.append(stop)


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:")


def _poke(server: socket.socket) -> None:
    """An empty datagram ends the server's loop."""
    with socket.socket(server.family, socket.SOCK_DGRAM) as client:
        client.sendto(b"", server.getsockname())


@contextlib.contextmanager
def proxy_host():
    with contextlib.ExitStack() as stack:
        names = ("host", "one", "two", "far", "outside")
        paths = {name: stack.enter_context(ns.namespace()) for name in names}
        _wire({name: path.rsplit("/", 1)[1] for name, path in paths.items()})
        host = Host(paths)
        try:
            for name in ("one", "two", "far"):
                host.serve(name)
            for name in ("one", "two", "far"):  # neighbours find each other before anything is measured
                for six, address in enumerate(ADDRESSES[name]):
                    host.ask("host", address, PORT, seconds=10, source=OWN[six])
                    host.ask("outside", address, PORT, seconds=10) if name != "far" else None
            yield host
        finally:
            host.close()


def _wire(names: dict[str, str]) -> None:
    host = names["host"]
    lines = [
        f"ip netns exec {host} sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.send_redirects=0",
        f"ip netns exec {host} sysctl -qw net.ipv4.conf.default.send_redirects=0",  # they use up the allowance for refusals
        f"ip netns exec {host} sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0",  # many refusals in a short time
        f"ip -n {host} addr add {OWN[0]}/32 dev lo",
        f"ip -n {host} addr add {OWN[1]}/128 dev lo nodad",
        f"ip -n {host} route add {SERVICES[0]} dev lo src {OWN[0]} scope link",
        f"ip -n {host} -6 route add {SERVICES[1]} dev lo src {OWN[1]}",
    ]
    for name in ("one", "two"):
        four, six = ADDRESSES[name]
        lines += _veth(host, names[name], f"ek{name}")
        lines += [
            f"ip netns exec {host} sysctl -qw net.ipv4.conf.ek{name}.route_localnet=1",
            f"ip -n {names[name]} addr add {four}/32 dev eth0",
            f"ip -n {names[name]} addr add {six}/128 dev eth0 nodad",
            f"ip -n {names[name]} route add 169.254.1.1 dev eth0 scope link",
            f"ip -n {names[name]} route add default via 169.254.1.1 dev eth0",
            f"ip -n {host} addr add 169.254.1.1/32 dev ek{name} scope link",
            f"ip -n {host} -6 addr add fe80::1/64 dev ek{name} nodad",
            f"ip -n {names[name]} -6 route add default via fe80::1 dev eth0",
            f"ip -n {host} route add {four}/32 dev ek{name} scope link src {OWN[0]}",
            f"ip -n {host} -6 route add {six}/128 dev ek{name} src {OWN[1]}",
        ]
    four, six = ADDRESSES["far"]
    lines += _veth(host, names["far"], "overlay")
    lines += [
        f"ip netns exec {host} sysctl -qw net.ipv4.conf.overlay.route_localnet=1",
        f"ip -n {host} addr add 10.99.0.1/24 dev overlay",
        f"ip -n {host} addr add fd99::1/64 dev overlay nodad",
        f"ip -n {names['far']} addr add 10.99.0.2/24 dev eth0",
        f"ip -n {names['far']} addr add fd99::2/64 dev eth0 nodad",
        f"ip -n {names['far']} addr add {four}/32 dev lo",
        f"ip -n {names['far']} addr add {six}/128 dev lo nodad",
        f"ip -n {names['far']} route add 10.42.0.0/24 via 10.99.0.1",
        f"ip -n {names['far']} -6 route add fd42::/64 via fd99::1",
        f"ip -n {host} route add 10.42.1.0/24 via 10.99.0.2 src {OWN[0]}",
        f"ip -n {host} -6 route add fd42:1::/64 via fd99::2 src {OWN[1]}",
    ]
    four, six = ADDRESSES["outside"]
    lines += _veth(host, names["outside"], "uplink")
    lines += [
        f"ip -n {host} addr add {ADDRESSES['host'][0]}/24 dev uplink",
        f"ip -n {host} addr add {ADDRESSES['host'][1]}/64 dev uplink nodad",
        f"ip -n {host} route add default via {four}",
        f"ip -n {host} -6 route add default via {six}",
        f"ip -n {names['outside']} addr add {four}/24 dev eth0",
        f"ip -n {names['outside']} addr add {six}/64 dev eth0 nodad",
        f"ip -n {names['outside']} route add default via {ADDRESSES['host'][0]}",
        f"ip -n {names['outside']} -6 route add default via {ADDRESSES['host'][1]}",
    ]
    ns.sh("set -e; " + "; ".join(lines))


def _veth(host: str, inner: str, name: str) -> list[str]:
    return [
        f"ip -n {host} link add {name} type veth peer name eth0 netns {inner}",
        f"ip -n {host} link set {name} up",
        f"ip -n {inner} link set eth0 up",
    ]


def anything(dice):
    """Targets of all kinds over a few fronts, two of them in one bucket."""
    fronts = [Front("10.43.0.5", "tcp", 80), Front("10.43.0.69", "tcp", 80), Front("198.51.100.9", "udp", 53)]
    fronts += [Front(ANY4, "tcp", 30001), Front(ANY4, "udp", 30002)]
    endpoints = [Endpoint("10.42.0.1", 80, True), Endpoint("10.42.0.2", 80, True), Endpoint("10.42.1.3", 80)]
    return {
        front: Target(
            tuple(dice.sample(endpoints, dice.randint(0, 3))),
            inside=tuple(dice.sample(endpoints, dice.choice((0, 0, 2)))),
            masquerade=dice.random() < 0.5,
            drop=dice.random() < 0.3,
            affinity_seconds=dice.choice((0, 0, 30)),
            sources=() if front.wild else dice.choice(((), (), ("192.0.2.0/24",))),  # node ports have none
        )
        for front in dice.sample(fronts, dice.randint(0, 5))
    }
