"""A cluster that machines join: the live API server over TLS with the controllers that approve and sign, and machines that are a key only.

async with joinable() as cluster:
    token = await cluster.token(uses=1)
    machine = Machine("pi"); await cluster.join(machine, token)      # what an agent does, without the agent
"""

import asyncio
import base64
import contextlib
import ssl
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import aiohttp
import orjson

from edgekube.api import bootstraptokens, catalog, nodeidentity, signers
from edgekube.apiserver.authn import AUTHENTICATED, service_account_user
from edgekube.apiserver.identity import User
from edgekube.apiserver.local import LocalClient
from edgekube.apiserver.renewal import PATH as RENEW
from edgekube.apiserver.renewal import Renewal
from edgekube.controllers.base import Settings
from edgekube.controllers.component import ControllerManager
from edgekube.errors import NotFound
from edgekube.lib import csr, pki
from edgekube.lib.clock import SystemClock
from edgekube.lib.pki import Subject
from edgekube.lib.tlsclock import ignore_time
from tests.kit.apiserver import Live, live_server

REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
ONLY = frozenset(("certificate-controller", "token-cleaner"))


@dataclass
class Machine:
    """A machine that joins: its key and, once it has one, its certificate."""

    name: str
    key: bytes = field(default_factory=pki.create_key)
    machine_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    certificate: bytes = b""

    @property
    def subject(self) -> Subject:
        return Subject(f"system:node:{self.name}", ("system:nodes",))

    @property
    def digest(self) -> str:
        return csr.parse(csr.make(self.key, self.subject)).key_digest


class Refused(AssertionError):
    """The request was denied; `reason` is the condition's."""

    def __init__(self, condition: dict) -> None:
        super().__init__(condition)
        self.reason, self.message = condition["reason"], condition["message"]


class Joinable:
    def __init__(self, live: Live, clock) -> None:
        self.live, self.clock = live, clock
        self.identities = live.server.authenticator.identities

    async def token(self, **options) -> str:
        """id.secret of a new join token."""
        bearer = bootstraptokens.new_bearer()
        await self.live.client.create(catalog.SECRET, bootstraptokens.secret_of(bearer, now=self.clock.now(), **options))
        return bearer

    def tls(self, machine: Machine | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.live.pki.ca))
        if machine is not None:
            path = self.live.folder / f"{machine.digest}.pem"
            path.write_bytes(machine.key + machine.certificate)
            context.load_cert_chain(path)
        return ignore_time(context)

    async def call(self, method: str, path: str, body=None, *, machine: Machine | None = None, token: str = "") -> tuple[int, object]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        raw = body if isinstance(body, bytes) else None if body is None else orjson.dumps(body)
        headers["Content-Type"] = "application/json"
        async with aiohttp.ClientSession() as session:
            url = self.live.url + path
            async with session.request(method, url, data=raw, headers=headers, ssl=self.tls(machine)) as answer:
                text = await answer.read()
        try:
            return answer.status, orjson.loads(text)
        except orjson.JSONDecodeError:
            return answer.status, text

    async def ask(self, machine: Machine, *, token: str = "", signer: str = signers.KUBELET_CLIENT, subject: Subject | None = None, by: Machine | None = None) -> str:
        """Create a signing request; its name."""
        serving = signer == signers.KUBELET_SERVING
        request = csr.make(machine.key, subject or machine.subject)
        obj = {
            "metadata": {"generateName": "csr-", "annotations": {nodeidentity.MACHINE_ANNOTATION: machine.machine_id}},
            "spec": {
                "request": base64.b64encode(request).decode(),
                "signerName": signer,
                "usages": ["digital signature", "server auth" if serving else "client auth"],
            },
        }
        status, made = await self.call("POST", REQUESTS, obj, token=token, machine=by)
        assert status == 201, made
        return made["metadata"]["name"]

    async def answer(self, name: str, seconds: float = 10) -> bytes:
        """The certificate. Raises Refused."""
        async with asyncio.timeout(seconds):
            while True:
                found = await self.live.client.get(catalog.CERTIFICATE_SIGNING_REQUEST, name)
                status = found.get("status") or {}
                for condition in status.get("conditions") or ():
                    if condition["type"] in ("Denied", "Failed"):
                        raise Refused(condition)
                if status.get("certificate"):
                    return base64.b64decode(status["certificate"])
                await self.changed(catalog.CERTIFICATE_SIGNING_REQUEST)

    async def changed(self, kind, seconds: float = 10) -> None:
        """Until something of a kind is written."""
        woken = asyncio.Event()
        stop = self.live.server.store.subscribe(kind.bucket, lambda _events: woken.set())
        try:
            async with asyncio.timeout(seconds):
                await woken.wait()
        finally:
            stop()

    async def join(self, machine: Machine, token: str, *, node: bool = True) -> Machine:
        """Get a certificate and register the Node, Ready. Raises Refused."""
        machine.certificate = await self.answer(await self.ask(machine, token=token))
        if node:
            await self.register(machine)
        return machine

    async def register(self, machine: Machine, ready: str = "True") -> None:
        client = self.live.client
        try:
            node = await client.get(catalog.NODE, machine.name)
        except NotFound:
            node = await client.create(catalog.NODE, {"metadata": {"name": machine.name}})
        status = {
            "conditions": [{"type": "Ready", "status": ready}],
            "nodeInfo": {"machineID": machine.machine_id} | dict.fromkeys(
                ("architecture", "bootID", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion", "kubeletVersion", "operatingSystem",
                 "osImage", "systemUUID"), "x"),
        }  # fmt: skip
        await client.update(catalog.NODE, node | {"status": status}, subresource="status")

    async def works(self, machine: Machine) -> str:
        """"" if the API knows the machine as its node, else why not."""
        status, answer = await self.call("GET", "/api/v1/nodes", machine=machine)
        return "" if status == 200 else f"{status} {answer['message']}"

    async def revoke(self, node: str) -> None:
        client = self.live.client
        secret = await client.get(catalog.SECRET, nodeidentity.secret_name(node), nodeidentity.NAMESPACE)
        await client.update(catalog.SECRET, nodeidentity.revoked(secret))
        with contextlib.suppress(NotFound):
            await client.delete(catalog.NODE, node)

    async def used(self, token: str) -> int:
        secret = await self.live.client.get(catalog.SECRET, bootstraptokens.PREFIX + token[:6], bootstraptokens.NAMESPACE)
        return len(bootstraptokens.read(secret).used_by)


@contextlib.asynccontextmanager
async def joinable(*, life: timedelta = pki.LEAF_LIFE, own_node: str = "node-1", clock=None):
    clock = clock or SystemClock()
    async with live_server() as live:
        cluster = Joinable(live, clock)
        authority: Path = live.pki.authority
        renewal = Renewal(identities=cluster.identities, authority=authority, clock=clock, life=life)
        live.server.routes.add(RENEW, renewal.handle, methods=("POST",), anonymous=True)

        def client_for(name: str) -> LocalClient:
            if name.startswith("system:serviceaccount:"):
                return LocalClient(live.server, service_account_user(*name.split(":")[2:]))
            return LocalClient(live.server, User(name, (AUTHENTICATED,)))

        settings = Settings(authority=authority, serving=live.pki.apiserver, certificate_life=life, own_node=own_node, listen_seconds=0.4)
        manager = ControllerManager(client_for=client_for, clock=clock, settings=settings, only=ONLY.__contains__)
        async with asyncio.TaskGroup() as group:
            ready = asyncio.Event()
            task = group.create_task(manager.run(ready))
            await ready.wait()
            try:
                yield cluster
            finally:
                task.cancel()
