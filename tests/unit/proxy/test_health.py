"""Health check ports as balancers see them, over real sockets."""

import asyncio
import json
import socket

import pytest

from edgekube.api.types import Key
from edgekube.lib.clock import SystemClock
from edgekube.proxy.health import LATE, HealthServers, ProxyHealth
from edgekube.proxy.services import Health

WEB = Key("default", "web")


class Clock(SystemClock):
    def __init__(self):
        self.moved = 0.0

    def monotonic(self):
        return super().monotonic() + self.moved


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def get(port, path="/"):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    lines = head.split("\r\n")
    return int(lines[0].split()[1]), dict(line.split(": ", 1) for line in lines[1:]), body


async def until_open(port):
    async with asyncio.timeout(5):
        while True:
            try:
                return await get(port)
            except OSError:
                await asyncio.sleep(0.01)


async def until_closed(port):
    async with asyncio.timeout(5):
        while True:
            try:
                await get(port)
            except OSError:
                return
            await asyncio.sleep(0.01)


@pytest.fixture
async def running():
    clock = Clock()
    proxy, port = ProxyHealth(clock), free_port()
    servers = HealthServers(proxy=proxy, port=port)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(servers.run())
        await until_open(port)
        yield servers, proxy, port, clock
        task.cancel()


async def test_a_service_port_says_how_many_are_here(running):
    servers, _, _, _ = running
    port, other = free_port(), free_port()
    servers.put(WEB, Health(port, 2))
    code, headers, body = await until_open(port)
    assert (code, headers["X-Load-Balancing-Endpoint-Weight"], headers["Content-Type"]) == (200, "2", "application/json")
    assert json.loads(body) == {"service": {"namespace": "default", "name": "web"}, "localEndpoints": 2, "serviceProxyHealthy": True}
    servers.put(WEB, Health(port, 0))
    assert (await get(port))[0] == 503
    servers.put(WEB, Health(other, 1))
    assert (await until_open(other))[0] == 200
    await until_closed(port)
    servers.put(WEB, None)
    await until_closed(other)


async def test_a_proxy_whose_changes_wait_is_unhealthy(running):
    servers, proxy, port, clock = running
    service = free_port()
    servers.put(WEB, Health(service, 1))
    await until_open(service)
    proxy.queued()
    assert (await get(port, "/healthz"))[0] == 200
    clock.moved = LATE + 1
    assert [(await get(port, path))[0] for path in ("/healthz", "/livez")] == [503, 503]
    assert (await get(service))[0] == 503
    proxy.done()
    code, _, body = await get(port, "/healthz")
    assert code == 200
    assert json.loads(body).keys() == {"lastUpdated", "currentTime", "nodeEligible"}


async def test_a_node_that_goes_is_not_eligible_but_live(running):
    _, proxy, port, _ = running
    proxy.see_node({"metadata": {"name": "pi"}, "spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}})
    assert [(await get(port, path))[0] for path in ("/healthz", "/livez", "/other")] == [503, 200, 404]
    proxy.see_node({"metadata": {"name": "pi"}, "spec": {}})
    assert (await get(port, "/healthz"))[0] == 200


async def test_a_taken_port_harms_nobody(running):
    servers, _, port, _ = running
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        servers.put(WEB, Health(other.getsockname()[1], 1))
        assert (await get(port, "/healthz"))[0] == 200
