"""The one connection to a server: dialed, kept alive, dialed again.

After a loss it tries at once and then ever more slowly (pace.py); `kick` (an address of ours changed, somebody heard of a server) makes
it try now. With a renewed certificate, or when the server says that it will close, the next connection is opened first and takes over; the
streams of the old one are finished there. While there is no connection, opening a stream fails at once: nothing queues.

Reads: the TLS context and the addresses, anew for each attempt. Promises: `session` is a connection that works, as far as is known.
"""

import asyncio
import contextlib
import logging
import secrets
import ssl
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from edgekube.agent.dial import Address, Dialed, DialFailed, is_gone, parse_addresses
from edgekube.agent.pace import Pace
from edgekube.agent.reach import Reach
from edgekube.agent.servers import Servers
from edgekube.lib import metrics
from edgekube.lib.clock import Clock
from edgekube.lib.mux import Refused, Session, SessionClosed, Stream, words
from edgekube.lib.mux.session import Accept
from edgekube.lib.ratelimit import RateLimit
from edgekube.lib.tasks import TaskScope

if TYPE_CHECKING:
    from aiohttp import BaseConnector

log = logging.getLogger(__name__)

SEARCH_AFTER = 3.0  # seconds without a connection before the local network is asked
READY_SECONDS = 1.0
KICK_EVERY = 0.3
PROBE_SECONDS = 2.0

CONNECTED = metrics.gauge("edgekube_link_connected", "Whether the agent has a connection to a server.")
DIALED = metrics.counter("edgekube_link_connections_total", "Connections to a server that were opened.")

class _Changed(DialFailed):
    """The attempt was given up for a new one."""


Search = Callable[[Callable[[Sequence[Address]], None]], Awaitable[None]]


class Link:
    """A component. `accept` gets the streams that the server opens; `search` asks the local network, until cancelled, and reports what it
    hears; `tls` is called for each attempt."""

    name = "link"

    def __init__(
        self, *, servers: Servers, tls: Callable[[], ssl.SSLContext], accept: Accept, clock: Clock, search: Search | None = None
    ) -> None:
        self._servers, self._accept, self._clock, self._search = servers, accept, clock, search
        self._session: Session | None = None
        self._open: dict[Session, Any] = {}  # with those that only finish what they have: our end of each
        self._up = False
        self._hints = RateLimit(rate=0.2, burst=3)
        self._pace = Pace(clock.monotonic())
        self.process = secrets.token_hex(8)
        self._reach = Reach(servers=servers, tls=tls, process=self.process)
        self._contact: tuple[float, float] | None = None
        self._wake, self._attempted = asyncio.Event(), asyncio.Event()
        self._swap = False
        self._trouble = ""
        self._watchers: list[Callable[[bool], None]] = []
        self._refusals: list[Callable[[int, str], None]] = []
        self._dates: list[Callable[[datetime], None]] = []
        self.generation = 0  # client.http.Way: which connection to open streams on

    # for the other parts

    @property
    def session(self) -> Session | None:
        return self._session if self._session is not None and self._session.alive else None

    @property
    def connected(self) -> bool:
        return self.session is not None

    @property
    def last_contact(self) -> float | None:
        """When something was last heard from a server, on the monotonic clock; None if never. That the server also hears us, only an
        answered request proves."""
        self._note_contact()
        return None if self._contact is None else self._contact[0]

    @property
    def last_contact_boottime(self) -> float | None:
        """The same on the clock that goes on while the machine sleeps."""
        self._note_contact()
        return None if self._contact is None else self._contact[1]

    @property
    def trouble(self) -> str:
        """Why there is no connection; "" while there is one."""
        return "" if self.connected else self._trouble or "no attempt has been made yet"

    def on_change(self, watcher: Callable[[bool], None]) -> None:
        """`watcher` is told whenever the connection comes (True) or goes (False). It must not block."""
        self._watchers.append(watcher)

    def on_refusal(self, watcher: Callable[[int, str], None]) -> None:
        """`watcher` is told the status and the reason whenever a server that is there does not take us."""
        self._refusals.append(watcher)

    def on_date(self, watcher: Callable[[datetime], None]) -> None:
        """`watcher` is told what time it is at the server, whenever a connection to one is there."""
        self._dates.append(watcher)

    def open(self, kind: str, label: str, protocol: asyncio.Protocol) -> Stream:
        """A stream to the server. Raises SessionClosed at once while there is no connection."""
        session = self.session
        if session is None:
            raise SessionClosed(f"no connection to a server: {self.trouble}")
        return session.open(kind, label, protocol)

    def connector(self) -> "BaseConnector":
        """HTTP over streams: client.http.Way."""
        from edgekube.agent.connector import LinkConnector

        return LinkConnector(self)

    def kick(self) -> None:
        """Something has changed: see whether the connections still work; if there is none, try now."""
        for session, local in list(self._open.items()):
            if is_gone(local):
                session.close("the address that it was made from is gone")
            else:
                session.probe(PROBE_SECONDS)
        if self.session is None:
            self._wake.set()

    def heard(self, addresses: Sequence[Address]) -> None:
        """A hint where the server may be. Strangers give hints too: an attempt that is under way is given up for a few of them only."""
        if self._servers.heard(addresses) and self._hints.allows(self._clock.monotonic()):
            log.info("heard of a server", extra={"addresses": ",".join(map(str, addresses))})
            self.kick()

    def renewed(self) -> None:
        """Our certificate has changed: move to a connection made with the new one."""
        self._swap = True
        self._wake.set()

    # the component

    async def run(self, ready: asyncio.Event) -> None:
        """Keep a connection until cancelled. Ready after the first attempt, and soon anyway: an agent starts with no server too."""
        try:
            async with TaskScope("link") as scope:
                scope.spawn(self._ready(ready), name="ready")
                while True:
                    await self._connect(scope)
                    await self._until_needed()
                    await asyncio.sleep(self._pace.before_another(self._clock.monotonic()))
        finally:
            await self._reach.close()
            for session in list(self._open):
                session.close("the agent stops")

    async def _ready(self, ready: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_SECONDS):
                await self._attempted.wait()
        ready.set()

    async def _connect(self, scope: TaskScope) -> None:
        """Until there is a new connection."""
        searching = None if self._search is None or self.connected else scope.spawn(self._searching(self._search), name="search")
        try:
            while True:
                self._wake.clear()
                error = await self._attempt()
                if error is None:
                    return
                if isinstance(error, _Changed):
                    continue
                self._attempted.set()
                self._tell(str(error))
                for watcher in self._refusals if error.refused else ():
                    watcher(error.refused, str(error))
                await self._pause(self._pace.after_failure(self._clock.monotonic(), refused=bool(error.refused)))
        finally:
            if searching is not None:
                searching.cancel()

    async def _searching(self, search: Search) -> None:
        """Whatever the attempts do meanwhile: one to a dead address takes long."""
        await asyncio.sleep(SEARCH_AFTER - self._pace.away(self._clock.monotonic()))
        await search(self.heard)

    async def _attempt(self) -> DialFailed | None:
        """Dial; given up when something changes meanwhile."""
        asking = asyncio.get_running_loop().create_future()
        self._swap = False  # before the certificate is read: one that is renewed from here on asks for another connection
        async with TaskScope("attempt") as scope:
            scope.spawn(self._dial(asking), name="dial")
            scope.spawn(self._kicked(asking), name="kick")
            outcome: Dialed | DialFailed = await asking
        if isinstance(outcome, DialFailed):
            return outcome
        self._take(outcome)
        return None

    async def _dial(self, asking: "asyncio.Future[Dialed | DialFailed]") -> None:
        outcome: Dialed | DialFailed = DialFailed("the attempt was given up")
        try:
            outcome = await self._reach()
        except DialFailed as error:
            outcome = error
        finally:
            if not asking.done():
                asking.set_result(outcome)
            elif isinstance(outcome, Dialed):
                outcome.transport.abort()

    async def _kicked(self, asking: "asyncio.Future[Dialed | DialFailed]") -> None:
        await asyncio.sleep(KICK_EVERY)
        await self._wake.wait()
        if not asking.done():
            asking.set_result(_Changed("something has changed"))

    def _take(self, dialed: Dialed) -> None:
        """The new connection is the one from now on."""
        old = self.session
        session = Session(dialer=True, accept=self._accepted, on_drain=self._wake.set)
        session.attach(dialed.transport, dialed.rest())
        self._open[session] = dialed.transport.get_extra_info("sockname")
        session.closed.add_done_callback(partial(self._closed, session))
        self._servers.told(dialed.servers)
        if dialed.date is not None:
            for watcher in self._dates:
                watcher(dialed.date)
        self._session, self._trouble = session, ""
        self._pace.connected(self._clock.monotonic())
        self._attempted.set()
        self.generation += 1
        DIALED.inc()
        log.info("connected to the server", extra={"server": str(dialed.address)})
        if old is not None:
            old.drain("the agent has a newer connection")
        self._changed(True)

    def _accepted(self, stream: Stream) -> asyncio.Protocol:
        if stream.kind == words.SERVERS:
            self._servers.told(parse_addresses(stream.label))
            return asyncio.Protocol()
        return self._accept(stream)

    def _closed(self, session: Session, closed: "asyncio.Future[str]") -> None:
        self._open.pop(session, None)
        if session is not self._session:
            return
        self._note_contact()
        self._session = None
        self._pace.lost(self._clock.monotonic())
        log.warning("connection to the server lost", extra={"why": closed.result()})
        self._trouble = closed.result()
        self._changed(False)
        self._wake.set()

    def _changed(self, connected: bool) -> None:
        if connected is self._up:
            return
        self._up = connected
        CONNECTED.set(int(connected))
        for watcher in self._watchers:
            watcher(connected)

    async def _until_needed(self) -> None:
        """While the connection is good and nobody wants another one."""
        while self.session is not None and not self._swap:
            self._wake.clear()
            await self._wake.wait()

    async def _pause(self, seconds: float) -> None:
        """Or until something changes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.warning("no connection to a server", extra={"why": trouble})
        self._trouble = trouble

    def _note_contact(self) -> None:
        if self._session is not None:
            self._contact = (self._session.heard, self._session.keepalive.heard_boottime)


def refuse(stream: Stream) -> asyncio.Protocol:
    """An `accept` for agents that answer nothing."""
    raise Refused(f"no streams of kind {stream.kind[:32]} are answered here")
