"""The Client of a component on another machine: the API server's HTTPS, with the errors and behaviour of the one in process.

One connection pool per client. Certificates are read from files again whenever they change, so that a renewed one is used without a
restart. aiohttp is imported when the first request is made. Promises: an answer with a Status raises its ApiError class; trouble with the
connection is ServiceUnavailable (nothing was sent or nobody knows) or Timeout.
"""

import contextlib
import random
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from edgekube.api import meta
from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.types import Key, Obj
from edgekube.client.paths import path_of, with_query
from edgekube.client.protocol import Change, ChangeType, ItemList, PatchType
from edgekube.errors import ApiError, ServiceUnavailable, Timeout
from edgekube.lib.clock import Clock
from edgekube.lib.tlsclock import judge

if TYPE_CHECKING:
    import aiohttp

WATCH_SECONDS = (300, 600)  # how long a watch lasts before it is opened again, spread as client-go does
SILENCE = 90.0  # longer than the server's bookmark interval: a watch that is silent for so long is dead
_REASON = re.compile(r"Error\((?:\d+, )?['\"]([^()]*)['\"]\)$")  # of the connection, at the end of what aiohttp says


class Way(Protocol):
    """Another way to the server than one of our own connections."""

    @property
    def generation(self) -> int:
        """Changes when open connections should be used no more: those in use are finished, new ones are opened."""

    def connector(self) -> "aiohttp.BaseConnector":
        """Makes connections; fails at once with aiohttp.ClientConnectionError where there is no way now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    """Where the server is and who we are to it."""

    server: str  # https://HOST:PORT, or http://NAME where `via` brings its own security
    server_name: str = ""  # what the server's certificate must name (default: HOST)
    via: Way | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None  # with key_file: our client certificate
    key_file: Path | None = None
    token: Callable[[], str] | None = None  # called for each request, so that it may rotate
    clock: Clock | None = None  # judges the server's certificate instead of the system clock: for servers of our own authority
    timeout: float = 30.0
    user_agent: str = "edgekube"


@dataclass(slots=True)
class _Pool:
    """Connections made with one version of our certificate."""

    session: "aiohttp.ClientSession"
    stamps: tuple[float | int, ...]
    users: int = 0


class HttpClient:
    """Implements client.protocol.Client. Close it, or use it as an async context manager."""

    def __init__(self, config: HttpConfig) -> None:
        self._config = config
        self._pool: _Pool | None = None
        self._retired: list[_Pool] = []

    async def __aenter__(self) -> "HttpClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. Safe to call twice."""
        pools, self._pool, self._retired = [*self._retired, *([self._pool] if self._pool else [])], None, []
        for pool in pools:
            await pool.session.close()

    # reading

    async def get(self, kind: Kind, name: str, namespace: str = "", *, subresource: str = "") -> Obj:
        return _object(await self._request("GET", path_of(kind, namespace, name, subresource)))

    async def list(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        continue_token: str = "",
        resource_version: str = "",
    ) -> ItemList:
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(limit or ""), "continue": continue_token}
        query["resourceVersion"] = resource_version
        answer = _object(await self._request("GET", with_query(path_of(kind, namespace), query)))
        about = answer.get("metadata", {})
        return ItemList(
            items=[_item(kind, obj) for obj in answer.get("items") or ()],
            revision=int(about.get("resourceVersion") or 0),
            continue_token=about.get("continue", ""),
            remaining=about.get("remainingItemCount", 0),
        )

    def watch(
        self, kind: Kind, namespace: str = "", *, revision: int, labels: str = "", fields: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Change]]]:
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": str(revision)}
        query |= {"labelSelector": labels, "fieldSelector": fields, "timeoutSeconds": str(random.randint(*WATCH_SECONDS))}
        return self._watch(kind, with_query(path_of(kind, namespace), query))

    @contextlib.asynccontextmanager
    async def _watch(self, kind: Kind, path: str) -> AsyncIterator[AsyncIterator[Sequence[Change]]]:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._config.timeout, sock_read=SILENCE)
        with self._session() as session:
            with _connection_errors():
                response = await session.get(
                    self._config.server + path, headers=self._headers(), timeout=timeout, server_hostname=self._config.server_name or None
                )
            try:
                if response.status != 200:
                    with _connection_errors():
                        answer = await response.read()
                    _raise_for(response.status, answer)
                yield _changes(kind, response)
            finally:
                response.close()  # a watch is dropped, it never ends politely

    # writing

    async def create(
        self, kind: Kind, obj: Obj, namespace: str = "", *, subresource: str = "", name: str = "", dry_run: bool = False
    ) -> Obj:
        about = obj.get("metadata", {})
        path = path_of(kind, namespace or about.get("namespace", ""), name if subresource else "", subresource)
        return _object(await self._request("POST", with_query(path, {"dryRun": "All" if dry_run else ""}), orjson.dumps(obj)))

    async def update(self, kind: Kind, obj: Obj, *, subresource: str = "", field_manager: str = "") -> Obj:
        about = obj["metadata"]
        path = path_of(kind, about.get("namespace", ""), about["name"], subresource)
        return _object(await self._request("PUT", with_query(path, {"fieldManager": field_manager}), orjson.dumps(obj)))

    async def patch(
        self,
        kind: Kind,
        name: str,
        namespace: str,
        patch: Any,
        *,
        patch_type: PatchType = PatchType.MERGE,
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
        dry_run: bool = False,
    ) -> Obj:
        query = {"fieldManager": field_manager, "force": "true" if force else "", "dryRun": "All" if dry_run else ""}
        path = with_query(path_of(kind, namespace, name, subresource), query)
        return _object(await self._request("PATCH", path, orjson.dumps(patch), patch_type.value))

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        *,
        grace_seconds: int | None = None,
        propagation: str = "",
        uid: str = "",
        revision: str = "",
    ) -> Obj:
        options: Obj = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if propagation:
            options["propagationPolicy"] = propagation
        preconditions = {name: value for name, value in (("uid", uid), ("resourceVersion", revision)) if value}
        if preconditions:
            options["preconditions"] = preconditions
        return _object(await self._request("DELETE", path_of(kind, namespace, name), orjson.dumps(options)))

    async def raw(self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
        return await self._request(method, with_query(path, query or {}), body)

    # the connection

    async def _request(self, method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
        import aiohttp

        headers = self._headers() | ({"Content-Type": content_type} if body else {})
        timeout = aiohttp.ClientTimeout(total=self._config.timeout)
        if self._retired:
            await self._close_retired()
        with self._session() as session, _connection_errors():
            async with session.request(
                method,
                self._config.server + path,
                data=body or None,
                headers=headers,
                timeout=timeout,
                server_hostname=self._config.server_name or None,
            ) as response:
                answer = await response.read()
        if response.status >= 400:
            _raise_for(response.status, answer)
        return answer

    def _headers(self) -> dict[str, str]:
        headers = {"User-Agent": self._config.user_agent, "Accept": "application/json"}
        if self._config.token is not None:
            headers["Authorization"] = f"Bearer {self._config.token()}"
        return headers

    @contextlib.contextmanager
    def _session(self) -> "Iterator[aiohttp.ClientSession]":
        """The pool to use. When a certificate file has changed that is a new one; the old is closed by the last who uses it."""
        import aiohttp

        stamps = self._stamps()
        if self._pool is None or stamps != self._pool.stamps:
            session = aiohttp.ClientSession(connector=self._connector())
            retired, self._pool = self._pool, _Pool(session, stamps)
            if retired is not None:
                self._retired.append(retired)
        pool = self._pool
        pool.users += 1
        try:
            yield pool.session
        finally:
            pool.users -= 1

    async def _close_retired(self) -> None:
        """Several requests may come here at once: each pool is taken out before anything is waited for."""
        idle, self._retired = [pool for pool in self._retired if not pool.users], [pool for pool in self._retired if pool.users]
        for pool in idle:
            await pool.session.close()

    def _connector(self) -> "aiohttp.BaseConnector":
        import aiohttp

        if self._config.via is not None:
            return self._config.via.connector()
        return aiohttp.TCPConnector(ssl=self._tls() if self._config.server.startswith("https") else True, limit=0)

    def _stamps(self) -> tuple[float | int, ...]:
        if self._config.via is not None:
            return (self._config.via.generation,)
        files = (self._config.ca_file, self._config.cert_file, self._config.key_file)
        with contextlib.suppress(FileNotFoundError):
            return tuple(path.stat().st_mtime for path in files if path is not None)
        return () if self._pool is None else self._pool.stamps

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=None if self._config.ca_file is None else str(self._config.ca_file))
        if self._config.cert_file is not None:
            context.load_cert_chain(self._config.cert_file, self._config.key_file)
        return context if self._config.clock is None else judge(context, self._config.clock)


@contextlib.contextmanager
def _connection_errors() -> Iterator[None]:
    import aiohttp

    try:
        yield
    except TimeoutError as error:
        raise Timeout(f"the server did not answer in time: {error}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise ServiceUnavailable(f"the server could not be reached: {_plain(error)}") from error


def _plain(error: BaseException) -> str:
    """The reason behind it: an answer that broke off is told by aiohttp in words about encodings."""
    import aiohttp

    if not isinstance(error, aiohttp.ClientPayloadError):
        return str(error)
    found = _REASON.search(str(error))
    return f"the answer broke off ({found[1]})" if found else "the answer broke off"


async def _changes(kind: Kind, response: "aiohttp.ClientResponse") -> AsyncIterator[Sequence[Change]]:
    """Whole lines of the stream, all that have arrived at a time."""
    rest = b""
    with _connection_errors():
        async for chunk in response.content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            batch = [_change(kind, line) for line in lines if line]
            if batch:
                yield batch


def _change(kind: Kind, line: bytes) -> Change:
    event = orjson.loads(line)
    obj = event["object"]
    if event["type"] == "ERROR":
        raise ApiError.from_status(obj)
    change = ChangeType(event["type"])
    if change is ChangeType.BOOKMARK:
        revision = int(obj["metadata"]["resourceVersion"])
        empty: dict[str, str] = {}
        item = Item(
            raw=b"", key=Key("", ""), uid="", revision=revision, labels=empty, fields=empty, owners=(), controller="", deleting=False
        )
        return Change(change, item)
    return Change(change, _item(kind, obj))


def _item(kind: Kind, obj: Obj) -> Item:
    """Items of a list do not name their kind: say it, so that `decode` gives the same everywhere."""
    whole = {"apiVersion": kind.api_version, "kind": kind.kind} | obj
    return meta.item_of(kind, meta.encode(whole), int(obj["metadata"]["resourceVersion"]))


def _object(answer: bytes) -> Obj:
    decoded: Obj = orjson.loads(answer)
    return decoded


def _raise_for(code: int, answer: bytes) -> None:
    try:
        status = orjson.loads(answer)
    except orjson.JSONDecodeError:
        status = {}
    if not isinstance(status, dict) or status.get("kind") != "Status":
        text = answer[:200].decode(errors="replace").strip()
        status = {"message": text or f"the server answered {code}", "code": code}
    raise ApiError.from_status(status | {"code": code})
