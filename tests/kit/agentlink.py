"""The agent's end of the connection, in this process, to a live API server: real TLS, real streams.

async with agent_link(live, "edge-1") as agent:
    agent.client          # client.http.HttpClient through the tunnel
    agent.link
"""

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path

from edgekube.agent.dial import parse_address
from edgekube.agent.inbound import Inbound
from edgekube.agent.link import Link
from edgekube.agent.servers import Servers
from edgekube.api import catalog, nodeidentity
from edgekube.client.http import HttpClient, HttpConfig
from edgekube.errors import AlreadyExists
from edgekube.kubelet.server.http import Caller, Reply, serve_connection
from edgekube.lib import csr, pki
from edgekube.lib.clock import SystemClock
from edgekube.lib.mux import words
from edgekube.lib.tlsclock import client_context
from tests.kit.until import until


@dataclass
class AgentLink:
    link: Link
    client: HttpClient
    servers: Servers
    credential: Path
    asked: list
    task: asyncio.Task

    async def connected(self, seconds=5.0):
        async with asyncio.timeout(seconds):
            await until(lambda: self.link.connected)


def credential(folder, authority, name, *, groups=("system:nodes",), user=None):
    """Key and certificate of a node in one file."""
    path = folder / f"{name}.pem"
    subject = pki.Subject(user or f"system:node:{name}", groups, client=True)
    pki.write_secret(path, pki.issue(authority.read_bytes(), subject, SystemClock().now()))
    return path


async def pin(client, name, path):
    """As if the holder of this file had joined as node `name`."""
    key = csr.parse(csr.make(pki.key_pem(path.read_bytes()), pki.Subject("x"))).key_digest
    with contextlib.suppress(AlreadyExists):
        await client.create(catalog.SECRET, nodeidentity.pinned(name, key, SystemClock().now(), None))


@contextlib.asynccontextmanager
async def agent_link(live, name, *, servers=None, handle=None, pods=None, path=None, search=None, wait=True, own=None, serve=None, process=""):
    """Until left. `process`: of another one, as if it were the same. `handle(request)` answers the server's requests to the kubelet; `pods` maps (namespace, name) to addresses."""
    clock = SystemClock()
    if own is None:
        own = credential(live.folder, live.pki.authority, name)
        await pin(live.client, name, own)
    asked = []

    async def answer(request):
        asked.append((request.certificate, request.method, request.path))
        return await handle(request) if handle is not None else Reply(200, b"ok")

    async def kubelet(reader, writer):
        await serve_connection(reader, writer, answer, Caller("kube-apiserver", ("system:masters",)))

    inbound = Inbound(serve=serve or kubelet, pod_address=lambda namespace, pod: (pods or {}).get((namespace, pod), ""))
    known = Servers([parse_address(each) for each in (servers or [f"127.0.0.1:{live.port}"])], path)
    link = Link(
        servers=known,
        tls=lambda: client_context(clock=clock, ca=live.pki.ca, credential=own),
        accept=inbound.accept,
        clock=clock,
        search=search,
    )
    if process:
        link._reach._process = process
    async with asyncio.TaskGroup() as group, HttpClient(HttpConfig(server=f"http://{words.SERVER_NAME}", via=link)) as client:
        ready = asyncio.Event()
        tasks = [group.create_task(inbound.run(ready)), group.create_task(link.run(ready))]
        agent = AgentLink(link, client, known, own, asked, tasks[1])
        try:
            if wait:
                await agent.connected()
            yield agent
        finally:
            for task in tasks:
                task.cancel()
