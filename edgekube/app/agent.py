"""An agent: it joins, once, and is a node of its cluster from then on.

    identity > discovery, link > what is remembered > node (settings of the cluster, then the parts of node.py) > certificates > time

It is ready once its parts are started: whether the server can be reached just now makes no difference (client/shadow.py). When the
cluster's settings change the parts of the node start anew, in this process; pods, links and rules are adopted as after any start.
The link stays.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from edgekube.agent import settings as cluster
from edgekube.agent.dial import DEFAULT_PORT, parse_address
from edgekube.agent.discovery import Discovery
from edgekube.agent.identity import Identity
from edgekube.agent.inbound import Inbound
from edgekube.agent.join import JoinConfig, ensure_joined
from edgekube.agent.link import Link, refuse
from edgekube.agent.refusal import JoinRefused
from edgekube.agent.renewal import NodeCertificates, RenewalConfig
from edgekube.agent.servers import Servers
from edgekube.app.host import follow_addresses
from edgekube.app.node import Host, node_parts
from edgekube.app.paths import paths_of
from edgekube.app.timekeeper import TimeKeeper, make_clock
from edgekube.client.http import HttpClient, HttpConfig
from edgekube.client.shadow import ShadowClient
from edgekube.client.shadowstore import ShadowStore
from edgekube.config import Settings, with_shared
from edgekube.errors import ApiError
from edgekube.kubelet.machine import read_machine
from edgekube.lib.backoff import Backoff
from edgekube.lib.clock import rfc3339
from edgekube.lib.mux import Stream, words
from edgekube.lib.receipt import Receipt
from edgekube.lib.sealed import FileKey, SealedLog
from edgekube.lib.supervise import Component, supervise
from edgekube.lib.tasks import until_set
from edgekube.lib.timefloor import FlooredClock
from edgekube.lib.tlsclock import client_context
from edgekube.lib.where import authority_of

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Door:
    """What the server may ask of this node just now: of the parts that run, or of none while they start."""

    accept: Callable[[Stream], asyncio.Protocol] = refuse
    reload: list[Callable[[], None]] = field(default_factory=list)  # the serving certificate is another
    moved: list[Callable[[], None]] = field(default_factory=list)  # an address of this machine is another
    addresses: Sequence[str] = ()  # of the node, the primary first

    def open(self, stream: Stream) -> asyncio.Protocol:
        return self.accept(stream)

    def reload_all(self) -> None:
        for call in self.reload:
            call()

    def move(self, addresses: Sequence[str]) -> None:
        self.addresses = tuple(addresses)
        for call in self.moved:
            call()


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """What the parts of an agent are built from."""

    settings: Settings  # of this machine alone
    identity: Identity
    client: ShadowClient  # answers from `remembered` while the server is away
    remembered: ShadowStore
    clock: FlooredClock
    door: Door


async def run_agent(settings: Settings, stop: asyncio.Event, announce: Callable[[], None]) -> None:
    """Join if need be, then run the node until `stop`; `announce` is called once all parts are started."""
    clock = make_clock(settings.data_dir, settings.test_clock_offset_file)
    identity = await until_set(stop, ensure_joined(join_config(settings), clock))
    if identity is None:
        return
    door = Door(addresses=identity.addresses)
    found = Servers([parse_address(each) for each in settings.server or identity.servers], identity.folder / "servers.json")
    discovery = None if settings.disable_discovery else _discovery(identity, found)
    search = None if discovery is None else discovery.search
    link = Link(servers=found, tls=lambda: _tls(identity, clock), accept=door.open, clock=clock, search=search)
    if discovery is not None:
        discovery.announcements_to(link.heard)
        door.moved.append(discovery.changed)
    async with HttpClient(HttpConfig(server=f"http://{words.SERVER_NAME}", via=link)) as inner:
        remembered = ShadowStore(file=SealedLog(identity.state, FileKey(identity.state_key)))
        await remembered.open()
        client = ShadowClient(inner, remembered)
        link.on_change(client.contact.link_changed)
        link.on_change(lambda up: None if up else remembered.hurry())
        client.contact.connected = lambda: link.connected
        own = replace(settings, node_name=identity.name)
        agent = Agent(settings=own, identity=identity, client=client, remembered=remembered, clock=clock, door=door)
        first = (discovery,) if discovery is not None else ()
        await supervise((*first, *parts(agent, link, found)), stop, on_ready=announce, start_timeout=float("inf"))


def _discovery(identity: Identity, servers: Servers) -> Discovery:
    """For servers of our authority, at the port that they have."""
    port = next((each.port for each in servers.candidates()), DEFAULT_PORT)
    return Discovery(authority=authority_of(identity.ca.read_text()), port=port)


def join_config(settings: Settings) -> JoinConfig:
    """What a first start is told. Raises JoinRefused if the token's file can not be read."""
    token = settings.token
    if settings.token_file and not token:
        try:
            token = Path(settings.token_file).read_text().strip()
        except OSError as error:
            if not (paths_of(settings).agent / "client.crt").exists():  # a node needs its token no more
                raise JoinRefused(f"the token can not be read from {settings.token_file}: {error.strerror}") from None
    return JoinConfig(
        folder=paths_of(settings).agent,
        servers=settings.server,
        token=token,
        node_name=settings.node_name,
        named=settings.node_named,
        machine_id=read_machine(settings.data_dir).machine_id,
        addresses=follow_addresses(settings).node,
        timeout=settings.join_timeout,
    )


def _tls(identity: Identity, clock: FlooredClock) -> ssl.SSLContext:
    """Made anew for each connection: the certificate may have been renewed."""
    context = client_context(clock=clock, ca=identity.ca)
    context.load_cert_chain(identity.client, identity.key)
    return context


def parts(agent: Agent, link: Link, servers: Servers) -> Sequence[Component]:
    """Everything of an agent, in order."""
    config = RenewalConfig(
        identity=agent.identity,
        servers=lambda: [f"https://{each}" for each in servers.candidates()],
        addresses=lambda: agent.door.addresses,
        renewed=link.renewed,
        reload=agent.door.reload_all,
    )
    certificates = NodeCertificates(config=config, client=agent.client, clock=agent.clock)
    link.on_refusal(certificates.refused)
    link.on_date(partial(_learn_time, agent.clock))
    agent.door.moved += [link.kick, certificates.kick]
    time = TimeKeeper(clock=agent.clock, client=agent.client, node_name=agent.identity.name, on_jump=(certificates.kick, link.kick))
    return (link, agent.remembered, NodeOfCluster(agent), certificates, time)


def _learn_time(clock: FlooredClock, moment: datetime) -> None:
    """From a server, but only for a machine that woke up in the past: one whose clock runs need not follow that of another."""
    if clock.behind > timedelta(0) and moment > clock.now():
        log.info("time learnt from the server", extra={"now": rfc3339(moment)})
        clock.raise_floor(moment)


class NodeOfCluster:
    """Component: the parts of the node, with the settings of the cluster; started anew when those change."""

    name = "node"

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def run(self, ready: asyncio.Event) -> None:
        agent = self._agent
        while True:
            values = await _cluster_settings(agent)
            changed = asyncio.Event()
            watch = cluster.SettingsWatch(client=agent.client, folder=agent.identity.folder, known=values, changed=changed.set)
            found = (*_node(agent, with_shared(agent.settings, values)), watch)
            await supervise(found, changed, on_ready=ready.set, start_timeout=float("inf"))
            agent.door.accept = refuse


async def _cluster_settings(agent: Agent) -> Mapping[str, str]:
    """The copy on disk, else the API's: asked until it answers."""
    found = cluster.load(agent.identity.folder)
    backoff = Backoff(base=0.1, cap=15.0, jitter=0.5)
    while found is None:
        try:
            found = await cluster.fetch(agent.client)
            cluster.save(agent.identity.folder, found)
        except ApiError as error:
            delay = backoff.delay("")
            level = logging.WARNING if backoff.failures("") > 4 else logging.DEBUG
            log.log(level, "settings of the cluster not readable yet", extra={"error": error.message})
            await asyncio.sleep(delay)
    return found


def _node(agent: Agent, settings: Settings) -> Sequence[Component]:
    """The parts of the node, and what leads to them from outside. `settings` are this machine's and the cluster's together."""
    agent.door.reload.clear()
    addresses = follow_addresses(settings)
    addresses.on_change(lambda _old, new: agent.door.move(new.node))
    agent.door.addresses = addresses.node
    host = Host(
        settings=settings,
        paths=paths_of(settings),
        receipt=Receipt(paths_of(settings).receipt),
        clock=agent.clock,
        client=agent.client,
        notes=agent.remembered,
        addresses=addresses,
        ca=agent.identity.ca,
        certificate=agent.identity.serving,
        key=agent.identity.key,
        server=agent.client.inner,
    )
    node = node_parts(host, agent.door.reload)
    inbound = Inbound(serve=node.serve, pod_address=node.pod_address)
    agent.door.accept = inbound.accept
    return (addresses, inbound, node)
