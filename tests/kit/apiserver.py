"""A live API server in this process: memory store, real credentials, authentication, RBAC and admission, TLS on 127.0.0.1.

async with live_server() as live:
    await live.client.get(POD, "web", "default")      # in process, as the admin
    live.url, live.ssl (admin certificate), live.kubeconfig
"""

import asyncio
import contextlib
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgekube.apiserver import authn, reviews
from edgekube.apiserver.admission import plugins
from edgekube.apiserver.allocators import ServiceValues
from edgekube.apiserver.authn import Authenticator
from edgekube.apiserver.authorizers import node_and_rbac
from edgekube.apiserver.bootstrap.reconcile import BootstrapConfig, ensure_bootstrap
from edgekube.apiserver.component import ApiServerComponent, ApiServerConfig
from edgekube.apiserver.credentials import ensure_pki, write_kubeconfig
from edgekube.apiserver.dialer import ClientTls, DirectDialer, TunnelDialer
from edgekube.apiserver.identity import User
from edgekube.apiserver.local import LocalClient
from edgekube.apiserver.objects import Objects
from edgekube.apiserver.rbac import RbacAuthorizer
from edgekube.apiserver.registry import tagger
from edgekube.apiserver.server import Server
from edgekube.apiserver.subresources import all as subresources
from edgekube.apiserver.tokens import TokenSigner, issuer_of
from edgekube.apiserver.tunnel import Tunnels
from edgekube.lib.clock import SystemClock
from edgekube.store.memory import MemoryStore

ADMIN = User("system:admin", ("system:masters", authn.AUTHENTICATED))


@dataclass
class Live:
    """The running server. `ssl` is a client context with the admin's certificate, `anonymous` one without."""

    server: Server
    client: LocalClient
    url: str
    port: int
    ssl: ssl.SSLContext
    anonymous: ssl.SSLContext
    kubeconfig: Path
    folder: Path
    pki: object
    component: ApiServerComponent
    tunnels: Tunnels


def assemble(pki, store, clock):
    """The core as the control plane builds it."""
    objects = Objects(store)
    signer = TokenSigner(pki.service_account_key, issuer=issuer_of("cluster.local"))
    rbac = RbacAuthorizer(objects)
    authenticator = Authenticator(signer=signer, objects=objects, clock=clock)
    values = ServiceValues(objects=objects, service_cidr="10.43.0.0/16", node_ports=range(30000, 32768), spared=("10.43.0.1", "10.43.0.10"))
    tunnels = Tunnels(clock=clock)
    direct = DirectDialer(objects=objects, tls=ClientTls(ca=pki.ca, credential=pki.apiserver_kubelet_client))
    dialer = TunnelDialer(tunnels=tunnels, direct=direct, local="node-1", objects=objects)
    server = Server(
        store=store,
        authenticator=authenticator,
        authorizer=node_and_rbac(objects, rbac),
        admission=plugins.build(plugins.Environment(objects=objects, rbac=rbac, values=values)),
        subresources=subresources.build(signer=signer, dialer=dialer),
        virtual=reviews.build(authenticator=authenticator, authorizer=rbac, audience=signer.issuer),
        clock=clock,
    )
    tunnels.register(server)
    authenticator.identities.on_revoked(tunnels.close)
    return server, objects, tunnels


@contextlib.asynccontextmanager
async def live_server(store=None, port=0):
    """Serve until left."""
    clock = SystemClock()
    with tempfile.TemporaryDirectory(prefix="ek-api-") as name:
        folder = Path(name)
        pki = await asyncio.to_thread(
            ensure_pki, folder / "pki", node_name="node-1", addresses=("127.0.0.1",), sans=(), now=clock.now(),
            cluster_domain="cluster.local", kubernetes_address="10.43.0.1",
        )  # fmt: skip
        own = store or MemoryStore(tagger)
        server, objects, tunnels = assemble(pki, own, clock)
        client = LocalClient(server, ADMIN)
        config = BootstrapConfig(kubernetes_address="10.43.0.1", cluster_dns="10.43.0.10", advertise_addresses=("192.0.2.1",), port=6443)
        await ensure_bootstrap(client=client, objects=objects, config=config)
        api = ApiServerConfig(bind_address="127.0.0.1", port=port, certificate=pki.apiserver, client_ca=pki.ca)
        component = ApiServerComponent(config=api, server=server, clock=clock, identities=server.authenticator.identities)
        ready = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(component.run(ready))
            await ready.wait()
            server.health.starting = False
            url = f"https://127.0.0.1:{component.port}"
            kubeconfig = folder / "kubeconfig.yaml"
            write_kubeconfig(kubeconfig, server_url=url, ca=pki.ca, credential=pki.admin)
            anonymous = ssl.create_default_context(cafile=str(pki.ca))
            trusted = ssl.create_default_context(cafile=str(pki.ca))
            trusted.load_cert_chain(pki.admin)
            try:
                yield Live(server, client, url, component.port, trusted, anonymous, kubeconfig, folder, pki, component, tunnels)
            finally:
                running.cancel()
        await own.close()
