"""An agent: it joins, once, and is a node of its cluster from then on.

    identity > client > node (node.py)

It is ready once its parts are started: whether the server can be reached just now makes no difference.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from edgekube.agent import identity as identities
from edgekube.agent.identity import Identity
from edgekube.app.host import node_address
from edgekube.app.node import Host, node_parts
from edgekube.app.paths import paths_of
from edgekube.client.http import HttpClient, HttpConfig
from edgekube.config import Settings
from edgekube.lib.clock import SystemClock
from edgekube.lib.supervise import Component, supervise


class NotJoined(RuntimeError):
    """This machine is no node of any cluster."""


async def run_agent(settings: Settings, stop: asyncio.Event, announce: Callable[[], None]) -> None:
    """Run the node until `stop`; `announce` is called once all parts are started."""
    identity = identities.load(paths_of(settings).agent)
    if identity is None or not identities.joined(identity):
        raise NotJoined("this machine has not joined a cluster")
    settings = replace(settings, node_name=identity.name)
    async with _client(identity, settings.server or identity.servers) as client:
        await supervise(parts(settings, identity, client), stop, on_ready=announce)


def _client(identity: Identity, servers: Sequence[str]) -> HttpClient:
    return HttpClient(
        HttpConfig(server=servers[0].rstrip("/"), ca_file=identity.ca, cert_file=identity.client, key_file=identity.key),
    )


def parts(settings: Settings, identity: Identity, client: HttpClient) -> Sequence[Component]:
    """Everything of an agent, in order."""
    reload: list[Callable[[], None]] = []
    host = Host(
        settings=settings,
        paths=paths_of(settings),
        clock=SystemClock(),
        client=client,
        addresses=lambda: (node_address(settings),),
        ca=identity.ca,
        certificate=identity.serving,
        key=identity.key,
    )
    return (node_parts(host, reload),)
