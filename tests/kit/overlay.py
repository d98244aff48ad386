"""Hosts on one wire that run nothing but the network component, against one API server in this process: how the overlay is tested alone.

    with overlay(2) as o:
        a, b = o.hosts; pod = a.add_pod("10.42.0.2"?)  # an address of the host's own range
        o.ping(pod, "10.42.1.2"); a.sh("ip link del " + a.device); a.log()

Each host is a namespace with a thread and an event loop of its own; the API server has its own, too, and is reached without a network, so
that whatever is done to wires only hits the overlay. The wire is a bridge in one more namespace.
"""

import asyncio
import contextlib
import tempfile
import threading
import time
import uuid
from pathlib import Path

import uvloop

from edgekube.api.catalog import NODE
from edgekube.lib.clock import SystemClock
from edgekube.lib.tasks import TaskScope
from edgekube.network.addresses import HostAddresses
from edgekube.network.component import NetworkConfig, NodeNetwork
from edgekube.network.model import OverlayConfig
from tests.kit import netns as ns
from tests.kit.apiserver import live_server


class OneSpawnsAtATime(uvloop.Loop):
    """uvloop refuses to start a program while another loop of the process does (and then does not close any more); a server has one loop."""

    _spawning = threading.Lock()

    async def subprocess_exec(self, *args, **kwargs):
        while not self._spawning.acquire(blocking=False):
            await asyncio.sleep(0.001)
        try:
            return await super().subprocess_exec(*args, **kwargs)
        finally:
            self._spawning.release()


class Loop:
    """An event loop in a thread, which may live in a namespace."""

    def __init__(self, netns=""):
        self._started = threading.Event()
        self._netns = netns
        self.loop = None
        self.thread = threading.Thread(target=self._thread, daemon=True)
        self.thread.start()
        self._started.wait()

    def _thread(self):
        if self._netns:
            import ctypes

            with open(self._netns, "rb") as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), ns.NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
        self.loop = OneSpawnsAtATime()
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(self._started.set)
        self.loop.run_forever()
        self.loop.close()

    def submit(self, coro):
        return asyncio.run_coroutine_threadsafe(coro, self.loop)

    def run(self, coro, seconds=30):
        return self.submit(coro).result(seconds)

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


class BridgedClient:
    """A Client of another loop's client."""

    def __init__(self, client, loop):
        self._client, self._loop = client, loop

    def _call(self, coro):
        return asyncio.wrap_future(self._loop.submit(coro))

    async def get(self, *args, **kwargs):
        return await self._call(self._client.get(*args, **kwargs))

    async def list(self, *args, **kwargs):
        return await self._call(self._client.list(*args, **kwargs))

    async def patch(self, *args, **kwargs):
        return await self._call(self._client.patch(*args, **kwargs))

    async def create(self, *args, **kwargs):
        return await self._call(self._client.create(*args, **kwargs))

    @contextlib.asynccontextmanager
    async def watch(self, *args, **kwargs):
        queue, here = asyncio.Queue(), asyncio.get_running_loop()

        async def pump():
            try:
                async with self._client.watch(*args, **kwargs) as batches:
                    async for batch in batches:
                        here.call_soon_threadsafe(queue.put_nowait, batch)
            except Exception as error:
                here.call_soon_threadsafe(queue.put_nowait, error)

        task = self._loop.submit(pump())

        async def stream():
            while True:
                found = await queue.get()
                if isinstance(found, Exception):
                    raise found
                yield found

        try:
            yield stream()
        finally:
            task.cancel()


class Api:
    """The API server's loop."""

    def __init__(self):
        self.loop = Loop()
        self._stop = None
        self._done = None
        ready = threading.Event()
        self._done = self.loop.submit(self._serve(ready))
        ready.wait(30)

    async def _serve(self, ready):
        self._stop = asyncio.Event()
        async with live_server() as live:
            self.live = live
            ready.set()
            await self._stop.wait()

    @property
    def client(self):
        return BridgedClient(self.live.client, self.loop)

    def run(self, coro):
        return self.loop.run(coro)

    def close(self):
        self.loop.loop.call_soon_threadsafe(self._stop.set)
        self._done.result(30)
        self.loop.close()


class OverlayHost:
    """One machine."""

    def __init__(self, api, name, netns, number, *, ranges, config, node_ips=()):
        self.api, self.name, self.netns, self.number, self.ranges = api, name, netns, number, ranges
        self.instance = f"{name}-{uuid.uuid4().hex[:4]}"
        self.overlay = OverlayConfig(instance=self.instance, **config)
        self.node_ips = node_ips
        self.pods = {}
        self._stack = contextlib.ExitStack()
        self.run_dir = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ek-run-")))
        self.loop = None
        self.network = None

    @property
    def device(self):
        return self.overlay.device

    def start(self):
        self.loop = Loop(self.netns)
        self.loop.run(self._start())
        return self

    async def _start(self):
        cluster = ("10.42.0.0/16", "fd42::/48")[: len(self.ranges)]
        services = ("10.43.0.0/16", "fd43::/112")[: len(self.ranges)]
        self.addresses = HostAddresses(node_ips=self.node_ips, cluster=cluster, excluded=services)
        self.addresses.on_change(lambda _old, new: self.register(new.node))
        config = NetworkConfig(
            node_name=self.name,
            service_cidrs=services,
            dns=("10.43.0.10", "fd43::a")[: len(self.ranges)],
            overlay=self.overlay,
            run_dir=self.run_dir,
        )
        self.network = NodeNetwork(config=config, client=self.api.client, addresses=self.addresses, clock=SystemClock())
        ready = asyncio.Event()
        self.tasks = TaskScope(self.name)
        self.tasks.spawn(self.network.run(ready), name="network")
        await ready.wait()
        await self._register(self.addresses.node)

    def register(self, node):
        """What the kubelet does with the host's addresses."""
        self.tasks.spawn(self._register(node), name="register")

    async def _register(self, node):
        client = self.api.client
        status = {"addresses": [{"type": "InternalIP", "address": address} for address in node]}
        try:
            await client.get(NODE, self.name)
        except Exception:
            spec = {"podCIDR": self.ranges[0], "podCIDRs": list(self.ranges)}
            await client.create(NODE, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name}, "spec": spec})
        await client.patch(NODE, self.name, "", {"status": status}, subresource="status")

    def stop(self):
        """Stop edgekube; links stay."""
        if self.loop is not None:

            async def end():
                await self.tasks.close()
                self.addresses.close()

            self.loop.run(end())
            self.loop.close()
            self.loop = None

    def add_pod(self, uid=""):
        """A pod's namespace; its addresses are in `pods`."""
        netns = self._stack.enter_context(ns.namespace())
        addresses = self.loop.run(self.network.attach(uid or f"pod-{len(self.pods)}", netns))
        self.pods[netns] = tuple(addresses)
        return netns

    def sh(self, command, *, check=True):
        return ns.sh(f"nsenter --net={self.netns} sh -c '{command}'", check=check)

    def close(self):
        self.stop()
        self._stack.close()


class OverlayNet:
    def __init__(self, api, wire, hosts):
        self.api, self.wire, self.hosts = api, wire, hosts


def ping(netns, address, *, size=56, wait=1):
    six = "-6 " if ":" in address else ""
    return "1 packets received" in ns.sh(f"nsenter --net={netns} busybox ping {six}-c1 -W{wait} -s{size} {address} || true")


def reaches(netns, address, *, seconds=3.0, size=56):
    """Seconds until a ping is answered. Raises AssertionError at the deadline."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if ping(netns, address, size=size):
            return time.monotonic() - began
    raise AssertionError(f"{address} not reached within {seconds} s")


@contextlib.contextmanager
def overlay(count=2, *, dual=False, mtu=1500, underlay6=False, start=True, **config):
    """Hosts with one pod range each, 10.42.N.0/24, at .10, .11, ... of the wire."""
    with contextlib.ExitStack() as stack:
        api = Api()
        stack.callback(api.close)
        wire = stack.enter_context(ns.namespace())
        ns.inside(wire, "ip link add br0 type bridge forward_delay 0; ip link set br0 up")
        hosts = []
        for number in range(count):
            netns = stack.enter_context(ns.namespace())
            plug(wire, netns, number, f"2001:db8::{10 + number}/64 nodad" if underlay6 else f"192.168.50.{10 + number}/24", mtu=mtu)
            ranges = (f"10.42.{number}.0/24", f"fd42:0:0:{number:x}::/64")[: 2 if dual else 1]
            host = OverlayHost(api, f"n{number}", netns, number, ranges=ranges, config=config)
            stack.callback(host.close)
            hosts.append(host.start() if start else host)
        yield OverlayNet(api, wire, hosts)


def plug(wire, netns, number, address, *, name="eth0", mtu=1500):
    """A cable from a host to the bridge of the wire."""
    port = f"p{number}{name}"
    ns.sh(f"nsenter --net={wire} ip link del {port}", check=False)
    ns.inside(wire, f"ip link add {port} mtu {mtu} type veth peer name {name} mtu {mtu} netns {ns_name(netns)}")
    ns.inside(wire, f"ip link set {port} master br0 up")
    ns.inside(netns, f"ip link set {name} up && ip addr add {address} dev {name}")


def ns_name(path):
    return path.rsplit("/", 1)[1]
