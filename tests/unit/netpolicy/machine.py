"""A node's network in a namespace, with pods in namespaces of their own that serve and ask: for rules in a real kernel."""

import contextlib
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator

from edgekube.netpolicy.model import NodeModel
from edgekube.netpolicy.ruleset import NOTHING, Frame, difference, tables_of, whole
from tests.kit import netns as ns
from tests.unit.netpolicy.world import World

TABLE = "edgekube_test_policy"
FRAME = Frame(table=TABLE, services=("10.43.0.0/16", "fd43::/108"), dns=("10.43.0.10",))
NUMBERS = (80, 81)
OWN = {4: "10.42.0.1", 6: "fd42::1"}
PROBES = tuple((protocol, number) for protocol in ("TCP", "UDP") for number in NUMBERS)
_KINDS = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}
_QUIET = 0.25  # seconds after the last answer that was expected, in which one that was not could come


class Machine:
    """The host namespace and the pods that are wired to it. `apply` brings the table to what the world says, as the component does."""

    def __init__(self, path: str) -> None:
        self.path, self.pods = path, {}
        self.state, self.model, self.known = NOTHING, NodeModel("here"), set()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        ns.inside(path, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; ip addr add 10.42.0.1/32 dev lo; ip addr add fd42::1/128 dev lo")

    def add(self, netns: str, *addresses: str) -> None:
        """Wire a pod as edgekube does: /32 or /128, a gateway that is everywhere the same."""
        link, name = f"ek{len(self.pods):012x}", netns.rsplit("/", 1)[-1]
        lines = [
            f"ip -n {name} link add eth0 type veth peer name {link} netns {self.path.rsplit('/', 1)[-1]}",
            f"ip -n {name} link set eth0 up; ip -n {name} link set lo up",
        ]
        host = [f"ip link set {link} up address ee:ee:ee:ee:ee:ee"]
        for address in addresses:
            gateway, size = ("fe80::1", 128) if ":" in address else ("169.254.1.1", 32)
            flag = "-6" if ":" in address else "-4"
            nodad = "nodad" if ":" in address else ""
            lines.append(f"ip -n {name} addr add {address}/{size} dev eth0 {nodad}")
            lines.append(f"ip -n {name} neigh replace {gateway} lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent")
            if flag == "-4":
                lines.append(f"ip -n {name} route replace {gateway}/32 dev eth0")
            lines.append(f"ip -n {name} {flag} route replace default via {gateway} dev eth0")
            host.append(f"ip {flag} route replace {address}/{size} dev {link}")
        ns.sh("; ".join(lines))
        mac = ns.sh(f"ip -n {name} -o link show eth0").split("link/ether ")[1].split()[0]
        host += [f"ip neigh replace {address} lladdr {mac} dev {link} nud permanent" for address in addresses]
        ns.inside(self.path, "; ".join(host))
        self.pods[addresses[0]] = netns

    def serve(self, address: str, where: str = "", numbers: Iterable[int] = NUMBERS) -> None:
        """Answer on every port, TCP and UDP."""

        def sockets() -> list[socket.socket]:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            found = []
            for number in numbers:
                for kind in _KINDS.values():
                    one = socket.socket(family, kind)
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    one.bind((address, number))
                    one.setblocking(False)
                    if kind == socket.SOCK_STREAM:
                        one.listen(64)
                    found.append(one)
            return found

        thread = threading.Thread(target=self._answer, args=(ns.call_inside(where or self.pods[address], sockets),))
        thread.start()
        self._threads.append(thread)

    def _answer(self, sockets: list[socket.socket]) -> None:
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
            for one in sockets:
                selector.register(stack.enter_context(one), selectors.EVENT_READ)
            while not self._stop.is_set():
                for key, _ in selector.select(0.05):
                    one = key.fileobj
                    with contextlib.suppress(OSError):
                        if one in sockets and one.type == socket.SOCK_STREAM:
                            selector.register(stack.enter_context(one.accept()[0]), selectors.EVENT_READ)
                        elif one.type == socket.SOCK_STREAM:
                            data = one.recv(100)
                            if data:
                                one.sendall(data)
                            else:
                                selector.unregister(one)
                        else:
                            data, peer = one.recvfrom(100)
                            one.sendto(data, peer)

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def apply(self, world: World) -> str:
        world.update(self.model, self.known, "here")
        wanted = tables_of(self.model.plan())
        commands = whole(FRAME, wanted) if self.state is NOTHING else difference(TABLE, self.state, wanted)
        self.load(commands)
        self.state = wanted
        return commands

    def load(self, commands: str) -> None:
        done = subprocess.run([*ns.enter_command(self.path), "nft", "-f", "-"], input=commands, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr + commands

    def reach(self, source: str, targets: Iterable[str], expected: set[tuple[str, str, int]], where: str = "") -> set[tuple[str, str, int]]:
        """(target, protocol, port) that answer the pod `source`. Waits for all that is expected, and a moment for what is not."""
        return ns.call_inside(where or self.pods[source], lambda: _ask(source if not where else "", targets, expected))


def _ask(source: str, targets: Iterable[str], expected: set[tuple[str, str, int]]) -> set[tuple[str, str, int]]:
    found: set[tuple[str, str, int]] = set()
    deadline = time.monotonic() + 5
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for target in targets:
            for protocol, number in PROBES:
                one = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, _KINDS[protocol]))
                one.setblocking(False)
                if source:
                    one.bind((source, 0))
                with contextlib.suppress(BlockingIOError, PermissionError):
                    one.connect((target, number))
                if protocol == "UDP":
                    with contextlib.suppress(OSError):
                        one.send(b"?")
                selector.register(one, selectors.EVENT_READ if protocol == "UDP" else selectors.EVENT_WRITE, (target, protocol, number))
        while time.monotonic() < deadline:
            events = selector.select(_QUIET)
            if not events and found >= expected:
                break
            for key, _ in events:
                selector.unregister(key.fileobj)
                with contextlib.suppress(OSError):
                    if key.data[1] == "UDP":
                        key.fileobj.recv(10)
                        found.add(key.data)
                    elif key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                        found.add(key.data)
    return found


@contextlib.contextmanager
def machine(world: World) -> Iterator[Machine]:
    """A machine with the world's pods of this node."""
    with contextlib.ExitStack() as stack:
        found = Machine(stack.enter_context(ns.namespace()))
        stack.callback(found.close)
        for pod in world.pods.values():
            if pod.node == "here" and not pod.host_network:
                found.add(stack.enter_context(ns.namespace()), *pod.addresses)
                for address in pod.addresses:
                    found.serve(address, found.pods[pod.address])
        yield found
