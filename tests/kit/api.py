"""The request core without a network: requests as Python calls, everybody allowed.

api = Api()
status, answer = await api("POST", "/api/v1/namespaces/default/configmaps", {...})
async with api.watch("/api/v1/configmaps?watch=1") as events: await events.next()
"""

import asyncio
import contextlib
import json
from urllib.parse import parse_qs, urlsplit

from edgekube.apiserver.identity import Decision, User
from edgekube.apiserver.local import LocalClient
from edgekube.apiserver.registry import tagger
from edgekube.apiserver.request import PushResponse, Request, StreamResponse
from edgekube.apiserver.server import Server
from edgekube.lib.clock import FakeClock
from edgekube.store.memory import MemoryStore

ADMIN = User("admin", ("system:masters", "system:authenticated"))


class Everybody:
    """Authenticator and authorizer in one: all are the admin, and `denied` (verb, resource) is refused."""

    def __init__(self):
        self.denied = set()

    async def authenticate(self, authorization, certificate):
        if authorization == "none":
            return None
        return User(authorization.removeprefix("Bearer ")) if authorization else ADMIN

    def authorize(self, attributes):
        return Decision((attributes.verb, attributes.resource) not in self.denied)


class Answer(tuple):
    """(status, body), with headers."""

    headers: dict = {}


class Events:
    """What a watch has sent."""

    def __init__(self):
        self.queue = asyncio.Queue()
        self.closed = asyncio.Event()
        self.pending = 0

    def write(self, data, chunk):
        assert chunk.endswith(data + b"\r\n")
        for line in data.splitlines():
            self.queue.put_nowait(json.loads(line))

    def buffered(self):
        return self.pending

    def close(self):
        self.closed.set()

    async def next(self):
        async with asyncio.timeout(5):
            return await self.queue.get()

    async def brief(self):
        event = await self.next()
        return event["type"], event["object"]["metadata"].get("name", "")


class Api:
    """A server over a store in memory."""

    def __init__(self, *, admission=(), history=1000, subresources=(), virtual=()):
        self.clock = FakeClock()
        self.store = MemoryStore(tagger, history=history)
        self.who = Everybody()
        self.server = Server(
            store=self.store,
            authenticator=self.who,
            authorizer=self.who,
            admission=admission,
            subresources=subresources,
            virtual=virtual,
            clock=self.clock,
        )
        self.client = LocalClient(self.server, ADMIN)

    def request(self, method, path, body=None, headers=None):
        parts = urlsplit(path)
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()

        async def read_body():
            return raw

        lower = {"content-type": "application/json"} if body is not None else {}
        lower |= {name.lower(): value for name, value in (headers or {}).items()}
        return Request(method, parts.path, parse_qs(parts.query, keep_blank_values=True), lower, read_body)

    async def __call__(self, method, path, body=None, headers=None):
        response = await self.server.handle(self.request(method, path, body, headers))
        raw = b"".join([chunk async for chunk in response.chunks]) if isinstance(response, StreamResponse) else response.body
        parsed = json.loads(raw) if response.content_type.startswith("application/json") and raw else raw
        answer = Answer((response.status, parsed))
        answer.headers = response.headers
        return answer

    async def ok(self, method, path, body=None, headers=None):
        status, answer = await self(method, path, body, headers)
        assert status < 300, answer
        return answer

    @contextlib.asynccontextmanager
    async def watch(self, path, headers=None):
        response = await self.server.handle(self.request("GET", path, None, headers))
        assert isinstance(response, PushResponse), response
        events = Events()
        response.start(events)
        try:
            yield events
        finally:
            response.stop()


def config_map(name, data=None, **metadata):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": data or {"k": "v"}}


CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
