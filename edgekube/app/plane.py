"""The control plane without its listeners: credentials, store, who may what, and the objects every cluster starts with.

Order matters: credentials and database first, side by side (at a first start the database alone: one that is refused leaves no
credentials behind), then the core, then the bootstrap objects through the core itself, so that they are validated like anybody's.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from edgekube.apiserver import authn, authority, oidc, reviews
from edgekube.apiserver.admission import plugins
from edgekube.apiserver.allocators import ServiceValues
from edgekube.apiserver.authn import Authenticator
from edgekube.apiserver.authorizers import node_and_rbac
from edgekube.apiserver.bootstrap.reconcile import BootstrapConfig, ensure_bootstrap, ensure_kubernetes_service
from edgekube.apiserver.credentials import Pki, ensure_pki, write_kubeconfig
from edgekube.apiserver.dialer import ClientTls, DirectDialer, TunnelDialer
from edgekube.apiserver.identities import NodeIdentities
from edgekube.apiserver.identity import User
from edgekube.apiserver.local import LocalClient
from edgekube.apiserver.objects import Objects
from edgekube.apiserver.rbac import RbacAuthorizer
from edgekube.apiserver.registry import tagger
from edgekube.apiserver.renewal import PATH as RENEW
from edgekube.apiserver.renewal import Renewal
from edgekube.apiserver.server import Server
from edgekube.apiserver.subresources import all as subresources
from edgekube.apiserver.tokens import TokenSigner, issuer_of
from edgekube.apiserver.tunnel import Tunnels
from edgekube.app.host import follow_addresses, server_addresses
from edgekube.app.paths import Paths
from edgekube.client.protocol import Client
from edgekube.config import Settings, shared
from edgekube.lib.clock import Clock
from edgekube.lib.receipt import Receipt
from edgekube.network.addresses import HostAddresses
from edgekube.store.protocol import Store
from edgekube.store.sqlite import SqliteStore, open_store

_SERVICE_ACCOUNT = "system:serviceaccount:"
ADMIN = User("system:admin", ("system:masters", authn.AUTHENTICATED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """What the components are built from."""

    settings: Settings
    paths: Paths
    clock: Clock
    addresses: HostAddresses
    pki: Pki
    store: Store
    server: Server
    objects: Objects
    identities: NodeIdentities
    kubelet_tls: ClientTls
    tunnels: Tunnels

    def component(self, name: str) -> Client:
        """In-process access with an identity of its own; a service account's name brings the groups it has."""
        if name.startswith(_SERVICE_ACCOUNT):
            namespace, _, account = name.removeprefix(_SERVICE_ACCOUNT).partition(":")
            return LocalClient(self.server, authn.service_account_user(namespace, account))
        return LocalClient(self.server, User(name, (authn.AUTHENTICATED,)))

    def admin(self) -> Client:
        """The identity of this server itself, for what no component may."""
        return LocalClient(self.server, ADMIN)

    def trust_own_node(self) -> None:
        """This machine's node is who holds its certificate's key: nobody pins it."""
        if not self.settings.disable_agent:
            self.identities.trust_own(self.settings.node_name, self.pki.kubelet_client)

    def node(self) -> Client:
        """The identity of this machine's node."""
        return LocalClient(self.server, User(f"system:node:{self.settings.node_name}", ("system:nodes", authn.AUTHENTICATED)))


def credentials(settings: Settings, paths: Paths, clock: Clock, addresses: Sequence[str]) -> Pki:
    """Certificates and the admin kubeconfig, made or renewed as needed. Blocks: run it in a thread."""
    found = ensure_pki(
        paths.pki,
        node_name=settings.node_name,
        addresses=tuple(dict.fromkeys([*addresses, *filter(None, [settings.advertise_address])])),
        sans=settings.tls_san,
        now=clock.now(),
        cluster_domain=settings.cluster_domain,
        kubernetes_address=settings.kubernetes_address,
        life=settings.certificate_life,
    )
    url = f"https://127.0.0.1:{settings.https_port}"
    Receipt(paths.receipt).note_file(settings.write_kubeconfig)
    write_kubeconfig(settings.write_kubeconfig, server_url=url, ca=found.ca, credential=found.admin)
    return found


async def open_plane(settings: Settings, paths: Paths, clock: Clock) -> Plane:
    """Everything up to a core that answers in process. The caller closes `store`."""
    addresses = follow_addresses(settings)
    opening = open_store(paths.database, tagger=tagger, linger_ms=settings.write_linger_ms)
    if not paths.pki.exists():
        opening = _done(await opening)
    make = asyncio.to_thread(credentials, settings, paths, clock, addresses.view.addresses)
    pki, store = await asyncio.gather(make, opening, return_exceptions=True)
    if isinstance(store, BaseException):
        raise store
    try:
        if isinstance(pki, BaseException):
            raise pki
        plane = await _core(settings, paths, clock, addresses, pki, store)
    except BaseException:
        await store.close()  # its thread would keep the process alive
        raise
    plane.server.health.add("store", lambda: store.trouble)
    return plane


async def _done(store: SqliteStore) -> SqliteStore:
    return store


async def _core(settings: Settings, paths: Paths, clock: Clock, addresses: HostAddresses, pki: Pki, store: Store) -> Plane:
    objects = Objects(store)
    signer = TokenSigner(pki.service_account_key, issuer=issuer_of(settings.cluster_domain))
    rbac = RbacAuthorizer(objects)
    identities = NodeIdentities(objects)
    authenticator = Authenticator(signer=signer, objects=objects, clock=clock, identities=identities)
    values = ServiceValues(
        objects=objects,
        service_cidr=settings.service_cidr,
        node_ports=settings.node_ports,
        spared=(settings.kubernetes_address, *settings.dns_addresses),
    )
    kubelet_tls = ClientTls(ca=pki.ca, credential=pki.apiserver_kubelet_client, clock=clock)
    tunnels = Tunnels(clock=clock, addresses=lambda: server_addresses(settings, addresses))
    direct = DirectDialer(objects=objects, tls=kubelet_tls)
    local = "" if settings.disable_agent else settings.node_name
    dialer = TunnelDialer(tunnels=tunnels, direct=direct, local=local, objects=objects)
    server = Server(
        store=store,
        authenticator=authenticator,
        authorizer=node_and_rbac(objects, rbac),
        admission=plugins.build(
            plugins.Environment(objects=objects, rbac=rbac, values=values, node_loss=settings.node_loss_policy, clock=clock)
        ),
        subresources=subresources.build(signer=signer, dialer=dialer),
        virtual=reviews.build(authenticator=authenticator, authorizer=rbac, audience=signer.issuer),
        clock=clock,
    )
    plane = Plane(
        settings=settings,
        paths=paths,
        clock=clock,
        addresses=addresses,
        pki=pki,
        store=store,
        server=server,
        objects=objects,
        identities=identities,
        kubelet_tls=kubelet_tls,
        tunnels=tunnels,
    )
    plane.trust_own_node()
    identities.on_revoked(lambda node: tunnels.close(node, "the key of the node is good no longer"))
    renewal = Renewal(identities=identities, authority=pki.authority, clock=clock, life=settings.certificate_life)
    server.routes.add(RENEW, renewal.handle, methods=("POST",), anonymous=True)
    authority.register(server.routes, pki.ca, clock)
    tunnels.register(server)
    oidc.register(
        server.routes, signer, jwks_uri=f"https://{settings.advertise_address or addresses.node[0]}:{settings.https_port}/openid/v1/jwks"
    )
    await ensure_bootstrap(
        client=LocalClient(server, ADMIN),
        objects=objects,
        config=bootstrap_config(settings, addresses),
    )
    return plane


async def publish_address(plane: Plane) -> None:
    """Make the `kubernetes` Service lead to where this server is now, and tell agents."""
    plane.tunnels.publish()
    config = bootstrap_config(plane.settings, plane.addresses)
    await ensure_kubernetes_service(client=LocalClient(plane.server, ADMIN), objects=plane.objects, config=config)


def bootstrap_config(settings: Settings, addresses: HostAddresses) -> BootstrapConfig:
    """As this server's addresses are now."""
    return BootstrapConfig(
        kubernetes_address=settings.kubernetes_address,
        cluster_dns=settings.cluster_dns,
        advertise_addresses=(settings.advertise_address or addresses.node[0],),
        port=settings.https_port,
        settings=shared(settings),
    )
