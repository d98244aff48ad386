"""A whole API server over TLS, with real credentials, permissions and admission, over a store in memory; and a scripted kubelet.

async with secured(tmp_path) as api:
    status, body = await api.call("GET", "/api/v1/nodes")
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from edgekube.api import catalog
from edgekube.apiserver import authority, oidc, reviews
from edgekube.apiserver.admission import plugins
from edgekube.apiserver.allocators import ServiceValues
from edgekube.apiserver.authn import AUTHENTICATED, Authenticator
from edgekube.apiserver.authorizers import node_and_rbac
from edgekube.apiserver.bootstrap.reconcile import BootstrapConfig, ensure_bootstrap
from edgekube.apiserver.credentials import ensure_pki
from edgekube.apiserver.dialer import ClientTls, DirectDialer
from edgekube.apiserver.front import Front, server_context
from edgekube.apiserver.identity import User
from edgekube.apiserver.local import LocalClient
from edgekube.apiserver.objects import Objects
from edgekube.apiserver.rbac import RbacAuthorizer
from edgekube.apiserver.registry import tagger
from edgekube.apiserver.server import Server
from edgekube.apiserver.subresources import all as subresources
from edgekube.apiserver.tokens import TokenSigner, issuer_of
from edgekube.lib import pki
from edgekube.lib.clock import SystemClock
from edgekube.store.memory import MemoryStore

ADMIN = User("system:admin", ("system:masters", AUTHENTICATED))
BOOT = BootstrapConfig(kubernetes_address="10.43.0.1", cluster_dns="10.43.0.10", advertise_addresses=("192.0.2.1",), port=6443)


class Api:
    """The running server and ways to talk to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pki = ensure_pki(folder / "pki", node_name="pi", addresses=["127.0.0.1"], now=datetime.now(UTC))
        self.store = MemoryStore(tagger)
        self.objects = Objects(self.store)
        self.signer = TokenSigner(self.pki.service_account_key, issuer=issuer_of("cluster.local"))
        self.rbac = RbacAuthorizer(self.objects)
        authenticator = Authenticator(signer=self.signer, objects=self.objects, clock=SystemClock())
        authenticator.identities.trust_own("pi", self.pki.kubelet_client)
        self.values = ServiceValues(objects=self.objects, service_cidr="10.43.0.0/16", node_ports=range(30000, 32768))
        dialer = DirectDialer(objects=self.objects, tls=ClientTls(ca=self.pki.ca, credential=self.pki.apiserver_kubelet_client))
        self.server = Server(
            store=self.store,
            authenticator=authenticator,
            authorizer=node_and_rbac(self.objects, self.rbac),
            admission=plugins.build(plugins.Environment(objects=self.objects, rbac=self.rbac, values=self.values)),
            subresources=subresources.build(signer=self.signer, dialer=dialer),
            virtual=reviews.build(authenticator=authenticator, authorizer=self.rbac, audience=self.signer.issuer),
        )
        authority.register(self.server.routes, self.pki.ca, SystemClock())
        oidc.register(self.server.routes, self.signer, jwks_uri="https://192.0.2.1:6443/openid/v1/jwks")
        self.client = LocalClient(self.server, ADMIN)
        self.port = 0

    def tls(self, credential: Path | None) -> ssl.SSLContext:
        """A client's side; None shows no certificate."""
        context = ssl.create_default_context(cafile=str(self.pki.ca))
        if credential is not None:
            context.load_cert_chain(str(credential))
        return context

    def certificate(self, name: str, *groups: str) -> Path:
        """A client certificate of our authority."""
        path = self.folder / f"{name}.pem"
        subject = pki.Subject(name, groups, client=True)
        pki.write_secret(path, pki.issue(self.pki.authority.read_bytes(), subject, datetime.now(UTC)))
        return path

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str = "",
        credential: Path | None = None,
        headers: Any = None,
        kind: str = "",
    ) -> tuple[int, Any]:
        """One request: with a token, with `credential`, else as the administrator. Answers status and decoded body."""
        shown = credential if credential is not None or token else self.pki.admin
        sent = dict(headers or {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        sent["Content-Type"] = kind or "application/json"
        async with aiohttp.ClientSession() as session:
            data = None if body is None else orjson.dumps(body)
            url = f"https://localhost:{self.port}{path}"
            async with session.request(method, url, data=data, headers=sent, ssl=self.tls(shown), allow_redirects=False) as answer:
                raw = await answer.read()
        try:
            return answer.status, orjson.loads(raw)
        except orjson.JSONDecodeError:
            return answer.status, raw.decode()

    async def anonymous(self, path: str) -> int:
        async with aiohttp.ClientSession() as session, session.get(f"https://localhost:{self.port}{path}", ssl=self.tls(None)) as answer:
            return answer.status

    async def account(self, name: str, namespace: str = "default") -> None:
        obj = {"metadata": {"name": name, "namespace": namespace}}
        await self.client.create(catalog.SERVICE_ACCOUNT, obj)

    async def token(self, name: str, namespace: str = "default", **spec: Any) -> str:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        status, answer = await self.call("POST", path, {"spec": spec})
        assert status == 201, answer
        return str(answer["status"]["token"])

    async def node(self, port: int) -> None:
        """The node `pi`, whose kubelet listens on `port`."""
        status = {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}
        await self.client.create(catalog.NODE, {"metadata": {"name": "pi"}})
        node = await self.client.get(catalog.NODE, "pi")
        await self.client.update(catalog.NODE, node | {"status": status}, subresource="status")


@contextlib.asynccontextmanager
async def secured(folder: Path) -> AsyncIterator[Api]:
    """Started, bootstrapped, with the `default` service account of the `default` namespace."""
    api = Api(folder)
    await ensure_bootstrap(client=api.client, objects=api.objects, config=BOOT)
    await api.account("default")
    front = Front(api.server)
    api.port = await front.listen("127.0.0.1", 0, server_context(api.pki.apiserver, api.pki.ca))
    try:
        yield api
    finally:
        await front.close(0.1)


class Kubelet:
    """Answers what it is told; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.talk: Any = None

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            await writer.drain()
            if self.talk is not None:
                await self.talk(reader, writer)
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def kubelet(api: Api) -> AsyncIterator[Kubelet]:
    """A kubelet with the node's certificate that takes only our authority's clients."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(api.pki.ca))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(str(api.pki.kubelet))
    made = Kubelet()
    server = await asyncio.start_server(made.handle, "127.0.0.1", 0, ssl=context)
    async with server:
        await api.node(server.sockets[0].getsockname()[1])
        yield made
