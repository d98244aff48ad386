"""An agent: it joins, once, and is a node of its cluster from then on.

    identity > client > settings of the cluster > node (node.py) > time

It is ready once its parts are started: whether the server can be reached just now makes no difference. When the cluster's settings change
the parts start anew, in this process; pods, links and rules are adopted as after any start.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from edgekube.agent import identity as identities
from edgekube.agent import settings as cluster
from edgekube.agent.identity import Identity
from edgekube.app.host import follow_addresses
from edgekube.app.node import Host, node_parts
from edgekube.app.paths import paths_of
from edgekube.app.timekeeper import TimeKeeper, make_clock
from edgekube.client.http import HttpClient, HttpConfig
from edgekube.client.protocol import Client
from edgekube.config import Settings, with_shared
from edgekube.errors import ApiError
from edgekube.lib.backoff import Backoff
from edgekube.lib.supervise import Component, supervise
from edgekube.lib.tasks import until_set
from edgekube.lib.timefloor import FlooredClock

log = logging.getLogger(__name__)

SERVER_NAME = "kubernetes"  # in every certificate of the API, whatever the server's address is


class NotJoined(RuntimeError):
    """This machine is no node of any cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """What the parts of an agent are built from."""

    settings: Settings  # of this machine alone
    identity: Identity
    client: Client
    clock: FlooredClock


async def run_agent(settings: Settings, stop: asyncio.Event, announce: Callable[[], None]) -> None:
    """Join if need be, then run the node until `stop`; `announce` is called once all parts are started."""
    clock = make_clock(settings.data_dir, settings.test_clock_offset_file)
    identity = identities.load(paths_of(settings).agent)
    if identity is None or not identities.joined(identity):
        raise NotJoined("this machine has not joined a cluster")
    async with _client(identity, settings.server or identity.servers, clock) as client:
        agent = Agent(settings=replace(settings, node_name=identity.name), identity=identity, client=client, clock=clock)
        while not stop.is_set():
            values = await until_set(stop, _cluster_settings(agent))
            if values is not None:
                await _run(agent, values, stop, announce)
                announce = _nothing


async def _run(agent: Agent, values: Mapping[str, str], stop: asyncio.Event, announce: Callable[[], None]) -> None:
    """Until `stop`, or until the cluster's settings are others."""
    changed = asyncio.Event()
    watch = cluster.SettingsWatch(client=agent.client, folder=agent.identity.folder, known=values, changed=changed.set)
    await until_set(stop, supervise((*parts(agent, with_shared(agent.settings, values)), watch), changed, on_ready=announce))


def _nothing() -> None:
    """The agent has been announced already."""


def _client(identity: Identity, servers: Sequence[str], clock: FlooredClock) -> HttpClient:
    config = HttpConfig(
        server=servers[0].rstrip("/"),
        server_name=SERVER_NAME,
        ca_file=identity.ca,
        cert_file=identity.client,
        key_file=identity.key,
        clock=clock,
    )
    return HttpClient(config)


async def _cluster_settings(agent: Agent) -> Mapping[str, str]:
    """The copy on disk, else the API's: asked until it answers."""
    found = cluster.load(agent.identity.folder)
    backoff = Backoff(base=0.1, cap=15.0, jitter=0.5)
    while found is None:
        try:
            found = await cluster.fetch(agent.client)
            cluster.save(agent.identity.folder, found)
        except ApiError as error:
            log.warning("settings of the cluster not readable yet", extra={"error": error.message})
            await asyncio.sleep(backoff.delay(""))
    return found


def parts(agent: Agent, settings: Settings) -> Sequence[Component]:
    """Everything of an agent, in order. `settings` are this machine's and the cluster's together."""
    reload: list[Callable[[], None]] = []
    host = Host(
        settings=settings,
        paths=paths_of(settings),
        clock=agent.clock,
        client=agent.client,
        addresses=follow_addresses(settings),
        ca=agent.identity.ca,
        certificate=agent.identity.serving,
        key=agent.identity.key,
    )
    return (node_parts(host, reload), TimeKeeper(clock=agent.clock, client=agent.client, node_name=settings.node_name))
