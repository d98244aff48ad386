"""Many agents in one process, without containers: each has its own connection, HTTP client, caches of what the parts of a node watch, Node
and Lease. All of that is the real code; only the runtime is not there.

    python -m tests.bench.crowd SERVER FOLDER FIRST COUNT       FOLDER has ca.crt and NAME.pem (key and certificate) for each
"""

import asyncio
import sys
from pathlib import Path

import uvloop

from edgekube.agent.dial import parse_address
from edgekube.agent.link import Link, refuse
from edgekube.agent.servers import Servers
from edgekube.agent.settings import NAME, NAMESPACE
from edgekube.api.catalog import CONFIG_MAP, ENDPOINT_SLICE, NODE, POD, POLICY_SLICE, SERVICE
from edgekube.api.catalog import NAMESPACE as NAMESPACES
from edgekube.client.cache import Cache, Source
from edgekube.client.http import HttpClient, HttpConfig
from edgekube.client.recorder import Recorder
from edgekube.kubelet.config import KubeletConfig
from edgekube.kubelet.machine import read_machine
from edgekube.kubelet.node import NodeAgent
from edgekube.lib.clock import SystemClock
from edgekube.lib.mux import words
from edgekube.lib.tlsclock import client_context
from tests.kit.fake_runtime import FakeRuntime


def sources(name):
    """What network, proxy, DNS, kubelet, policies and settings watch, each in a cache of its own."""
    pods, own = Source(POD, fields=f"spec.nodeName={name}"), Source(NODE, fields=f"metadata.name={name}")
    settings = Source(CONFIG_MAP, namespace=NAMESPACE, fields=f"metadata.name={NAME}")
    return (
        (NODE,),
        (SERVICE, ENDPOINT_SLICE, pods, own),
        (SERVICE, ENDPOINT_SLICE, NAMESPACES),
        (pods, SERVICE, own),
        (POLICY_SLICE, pods),
        (settings,),
    )


async def agent(name, server, folder, registered):
    clock = SystemClock()
    link = Link(
        servers=Servers([parse_address(server)]),
        tls=lambda: client_context(clock=clock, ca=folder / "ca.crt", credential=folder / f"{name}.pem"),
        accept=refuse,
        clock=clock,
    )
    config = KubeletConfig(node_name=name, data_dir=folder / name, run_dir=folder / name)
    async with HttpClient(HttpConfig(server=f"http://{words.SERVER_NAME}", via=link)) as client, asyncio.TaskGroup() as group:
        recorder = Recorder(client=client, component="kubelet", clock=clock, host=name)
        node = NodeAgent(
            config=config, client=client, runtime=FakeRuntime(), clock=clock, recorder=recorder, machine=read_machine(folder),
            host_ips=lambda: ("192.0.2.1",), network_ready=lambda: True,
        )  # fmt: skip
        for work in (link.run(asyncio.Event()), recorder.run(), node.run(registered)):
            group.create_task(work)
        for kinds in sources(name):
            group.create_task(Cache(client=client, sources=kinds).run())


async def crowd(server, folder, first, count):
    async with asyncio.TaskGroup() as group:
        events = []
        for number in range(first, first + count):
            events.append(asyncio.Event())
            group.create_task(agent(f"sim-{number}", server, folder, events[-1]))
            await asyncio.sleep(0.05)  # machines do not start in the same millisecond
        for event in events:
            await event.wait()
        print("all registered", flush=True)


if __name__ == "__main__":
    server, folder, first, count = sys.argv[1:]
    uvloop.run(crowd(server, Path(folder), int(first), int(count)))
