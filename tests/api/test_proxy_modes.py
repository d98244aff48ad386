"""A kernel in which the proxy mode does not work: the next one serves, and the node's Events say so."""

import asyncio
import os

import pytest

from edgekube.api.catalog import ENDPOINT_SLICE, EVENT, SERVICE
from edgekube.apiserver.identity import User
from edgekube.apiserver.local import LocalClient
from edgekube.proxy.component import Proxy, ProxyConfig
from tests.api.controlplane import control_plane
from tests.kit import netns as ns
from tests.kit.requires import has, needs

pytestmark = needs("root", "netns", "iptables")
REFUSING = "#!/bin/sh\ncat >/dev/null; echo 'Could not process rule: Operation not supported' >&2; exit 1\n"


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """`broken("nft")`: the kernel refuses whatever that program asks for."""

    def make(*programs):
        for program in programs:
            (tmp_path / program).write_text(REFUSING)
            (tmp_path / program).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return make


async def mode_and_event(mode):
    async with control_plane(only=lambda name: name == "service-account-controller", nodes=False) as plane:
        spec = {"clusterIP": "10.43.0.50", "ports": [{"name": "http", "port": 80}]}
        await plane.client.create(SERVICE, {"metadata": {"name": "web", "namespace": "default"}, "spec": spec})
        metadata = {"name": "web", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}}
        endpoints = [{"addresses": ["192.0.2.1"], "nodeName": "pi", "conditions": {"ready": True}}]
        ports = [{"name": "http", "port": 9000, "protocol": "TCP"}]
        await plane.client.create(
            ENDPOINT_SLICE, {"metadata": metadata, "addressType": "IPv4", "ports": ports, "endpoints": endpoints}
        )
        config = ProxyConfig(
            node_name="pi", instance="t", cluster_cidrs=("10.42.0.0/16",), service_cidrs=("10.43.0.0/16",), mode=mode
        )
        client = LocalClient(plane.server, User("system:node:pi", ("system:nodes", "system:masters")))
        proxy, ready = Proxy(config=config, client=client), asyncio.Event()
        task = asyncio.get_running_loop().create_task(proxy.run(ready))
        async with asyncio.timeout(20):
            await ready.wait()
            answer = await listening()
            events = []
            while not events:
                await asyncio.sleep(0.05)
                found = await plane.client.list(EVENT, "")
                events = [event for event in map(_decoded, found.items) if event["reason"] == "ProxyModeNotPossible"]
        task.cancel()
        await asyncio.wait([task])
        return proxy._backend.name, answer, events[0]


def _decoded(item):
    return item.decode() if hasattr(item, "decode") else item


async def listening():
    server = await asyncio.start_server(lambda _reader, writer: (writer.write(b"me"), writer.close()), "192.0.2.1", 9000)
    try:
        reader, writer = await asyncio.open_connection("10.43.0.50", 80)
        answer = await reader.read()
        writer.close()
        return answer
    finally:
        server.close()


@pytest.mark.parametrize(
    ("programs", "mode", "used"),
    [(("nft",), "", "iptables"), (("nft", "iptables-restore"), "", "userspace"), ((), "ipvs", "nftables")],
)
def test_the_next_mode_serves_and_the_node_says_so(broken, programs, mode, used):
    if mode == "ipvs" and has("ipvs"):
        pytest.skip("NOT TESTED HERE: the kernel has ip_vs")
    broken(*programs)
    with ns.namespace() as path:
        ns.inside(path, "ip addr add 192.0.2.1/32 dev lo; ip route add 10.43.0.0/16 dev lo src 192.0.2.1 scope link")
        name, answer, event = ns.call_inside(path, lambda: asyncio.run(mode_and_event(mode)))
    assert name == used
    assert answer == b"me"
    assert event["type"] == "Warning"
    assert event["involvedObject"]["name"] == "pi"
    assert event["message"].startswith(f"Services go through {used}: this kernel can not do {mode or 'nftables'} (")
