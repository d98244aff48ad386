"""The parts of a server, in the order they start. Each gets its own client identity and nothing of the others.

    addresses > apiserver > controllers > scheduler > node (node.py) > manifests > certificates > moving > whereabouts > time > snapshots
"""

import asyncio
from collections.abc import Callable, Sequence

from edgekube.apiserver.component import ApiServerComponent, ApiServerConfig
from edgekube.app.backup import exchange
from edgekube.app.backup.folder import hint
from edgekube.app.backup.restore import ASIDE
from edgekube.app.backup.schedule import Snapshots
from edgekube.app.certificates import CertificateRenewal
from edgekube.app.moving import MovingServer
from edgekube.app.noderole import ControlPlaneRole
from edgekube.app.paths import paths_of
from edgekube.app.plane import Plane, credentials, open_plane, publish_address
from edgekube.app.timekeeper import TimeKeeper, make_clock
from edgekube.app.whereabouts import Whereabouts
from edgekube.config import Settings
from edgekube.controllers.base import Settings as ControllerSettings
from edgekube.controllers.component import ControllerManager
from edgekube.controllers.servicelb import ServiceLbController
from edgekube.lib.receipt import Receipt
from edgekube.lib.supervise import Component, supervise
from edgekube.lib.timefloor import FlooredClock
from edgekube.manifests.component import ManifestsFolder
from edgekube.scheduler.component import Scheduler
from edgekube.store.protocol import StoreDamaged


async def run_server(settings: Settings, stop: asyncio.Event, announce: Callable[[], None]) -> None:
    """Run all parts until `stop`; `announce` is called once /readyz is ok."""
    clock = make_clock(settings.data_dir, settings.test_clock_offset_file)
    try:
        plane = await open_plane(settings, paths_of(settings), clock)
    except StoreDamaged as error:
        raise StoreDamaged(f"{error}{hint(settings.data_dir) if 'damaged' in str(error) else ''}") from error

    def ready() -> None:
        plane.server.health.starting = False
        exchange.forget(settings.data_dir, ASIDE)  # the restored state has proved good
        announce()

    try:
        await supervise(parts(plane, clock), stop, on_ready=ready)
    finally:
        await plane.store.close()


def parts(plane: Plane, clock: FlooredClock) -> Sequence[Component]:
    """Everything, in order."""
    settings = plane.settings
    api = ApiServerComponent(
        config=ApiServerConfig(
            bind_address=settings.bind_address,
            port=settings.https_port,
            certificate=plane.pki.apiserver,
            client_ca=plane.pki.ca,
            event_ttl_seconds=settings.event_ttl_seconds,
        ),
        server=plane.server,
        clock=plane.clock,
        identities=plane.identities,
    )
    reload = [api.reload, plane.kubelet_tls.reload, plane.trust_own_node]
    found: list[Component] = [api, _controllers(plane), Scheduler(client=plane.component("system:kube-scheduler"), clock=plane.clock)]
    if not settings.disable_agent:
        found += [_node(plane, reload), ControlPlaneRole(client=plane.admin(), node_name=settings.node_name)]
    found.append(ManifestsFolder(folder=plane.paths.manifests, client=plane.admin(), clock=plane.clock))
    renewal = CertificateRenewal(
        pki=plane.pki,
        renew=lambda: credentials(settings, plane.paths, plane.clock, plane.addresses.view.addresses),
        reload=reload,
        clock=plane.clock,
    )
    whereabouts = Whereabouts(settings=settings, ca_pem=plane.pki.ca.read_text(), addresses=plane.addresses)
    time = TimeKeeper(clock=clock, client=plane.node(), node_name=settings.node_name, on_jump=(renewal.kick,))
    moving = MovingServer(addresses=plane.addresses, renew=renewal.subjects_changed, publish=lambda: publish_address(plane))
    snapshots = Snapshots(store=plane.store, paths=plane.paths, settings=settings, clock=plane.clock)
    snapshots.register(plane.server)
    return (plane.addresses, *found, renewal, moving, whereabouts, time, snapshots)


def _controllers(plane: Plane) -> Component:
    settings = plane.settings
    left_out = {ServiceLbController.name} if "servicelb" in settings.disable else set()
    return ControllerManager(
        client_for=plane.component,
        clock=plane.clock,
        settings=ControllerSettings(
            ca_pem=plane.pki.ca.read_text(),
            cluster_cidrs=settings.cluster_cidrs,
            authority=plane.pki.authority,
            serving=plane.pki.apiserver,
            certificate_life=settings.certificate_life,
            own_node="" if settings.disable_agent else settings.node_name,
            listens=_listens(settings),
            node_grace=settings.node_monitor_grace_seconds,
            node_startup_grace=max(60, settings.node_monitor_grace_seconds),
            node_loss=settings.node_loss_policy,
            fence_after=settings.fence_after_seconds,
        ),
        only=lambda name: name not in left_out,
    )


def _listens(settings: Settings) -> dict[str, dict[tuple[str, int], str]]:
    """Ports of nodes that no load balancer may take; kubelets say theirs themselves."""
    everywhere = {("UDP", settings.vxlan_port): "the pod network", ("TCP", settings.proxy_health_port): "the service proxy's health check"}
    return {"": everywhere, settings.node_name: {("TCP", settings.https_port): "the API server"}}


def _node(plane: Plane, reload: list[Callable[[], None]]) -> Component:
    from edgekube.app.node import Host, node_parts

    host = Host(
        settings=plane.settings,
        paths=plane.paths,
        receipt=Receipt(plane.paths.receipt),
        clock=plane.clock,
        client=plane.node(),
        addresses=plane.addresses,
        ca=plane.pki.ca,
        certificate=plane.pki.kubelet,
        key=plane.pki.kubelet,
    )
    return node_parts(host, reload)
