"""All controllers as one component: a shared cache, a runner each, Events each, under identities that RBAC knows from upstream.

`CONTROLLERS` is the list. The cache reads as `system:kube-controller-manager`; each controller acts as
`system:serviceaccount:kube-system:<its name>`. Nothing runs before the cache has seen everything once.
"""

import asyncio
from collections.abc import Callable

from edgekube.api.catalog import EVENT, EVENT_V1, KINDS, POD
from edgekube.client.cache import Cache
from edgekube.client.derived import Derived
from edgekube.client.protocol import Client
from edgekube.client.recorder import Recorder
from edgekube.controllers.accounttokens import AccountTokensController
from edgekube.controllers.aggregation import AggregationController
from edgekube.controllers.base import Controller, Settings, Tools
from edgekube.controllers.certificates import CertificateController
from edgekube.controllers.consistency import TrackingClient
from edgekube.controllers.deployment import DeploymentController
from edgekube.controllers.endpoints import EndpointsController
from edgekube.controllers.endpointslice import EndpointSliceController
from edgekube.controllers.fencing import FencingController
from edgekube.controllers.garbage import GarbageCollector
from edgekube.controllers.mirroring import MirroringController
from edgekube.controllers.namespace import NamespaceController
from edgekube.controllers.networkpolicy import NetworkPolicyController
from edgekube.controllers.nodeipam import NodeIpamController
from edgekube.controllers.nodelifecycle import NodeLifecycleController
from edgekube.controllers.podgc import PodGCController
from edgekube.controllers.pods import pod_facts
from edgekube.controllers.replicaset import ReplicaSetController
from edgekube.controllers.rootca import RootCAController
from edgekube.controllers.runner import Runner
from edgekube.controllers.serviceaccount import ServiceAccountController
from edgekube.controllers.servicelb import ServiceLbController
from edgekube.controllers.tainteviction import TaintEvictionController
from edgekube.controllers.tokencleaner import TokenCleaner
from edgekube.lib.clock import Clock

READER = "system:kube-controller-manager"

Make = Callable[[Tools, Settings], Controller]

CONTROLLERS: tuple[tuple[str, Make], ...] = (
    (NamespaceController.name, lambda tools, _: NamespaceController(tools)),
    (GarbageCollector.name, lambda tools, _: GarbageCollector(tools)),
    (ServiceAccountController.name, lambda tools, _: ServiceAccountController(tools)),
    (AccountTokensController.name, lambda tools, settings: AccountTokensController(tools, ca_pem=settings.ca_pem)),
    (RootCAController.name, lambda tools, settings: RootCAController(tools, ca_pem=settings.ca_pem)),
    (CertificateController.name, CertificateController),
    (TokenCleaner.name, lambda tools, _: TokenCleaner(tools)),
    (AggregationController.name, lambda tools, _: AggregationController(tools)),
    (NodeIpamController.name, lambda tools, s: NodeIpamController(tools, cluster_cidrs=s.cluster_cidrs)),
    (NodeLifecycleController.name, lambda tools, s: NodeLifecycleController(tools, grace=s.node_grace, startup_grace=s.node_startup_grace)),
    (TaintEvictionController.name, lambda tools, settings: TaintEvictionController(tools, policy=settings.node_loss)),
    (FencingController.name, lambda tools, _: FencingController(tools)),
    (DeploymentController.name, lambda tools, _: DeploymentController(tools)),
    (ReplicaSetController.name, lambda tools, _: ReplicaSetController(tools)),
    (EndpointSliceController.name, lambda tools, _: EndpointSliceController(tools)),
    (EndpointsController.name, lambda tools, _: EndpointsController(tools)),
    (MirroringController.name, lambda tools, _: MirroringController(tools)),
    (NetworkPolicyController.name, lambda tools, _: NetworkPolicyController(tools)),
    (ServiceLbController.name, lambda tools, settings: ServiceLbController(tools, listens=settings.listens)),
    (PodGCController.name, lambda tools, s: PodGCController(tools, keep=s.terminated_pods, fence_after=s.fence_after)),
)


_ACCOUNTS = {TaintEvictionController.name: NodeLifecycleController.name}  # as upstream: it has no account of its own


def user_of(name: str) -> str:
    """The user a controller acts as."""
    return f"system:serviceaccount:kube-system:{_ACCOUNTS.get(name, name)}"


class ControllerManager:
    """Component. `client_for(user name)` gives a client of that identity; service accounts have their usual groups."""

    name = "controllers"

    def __init__(
        self, *, client_for: Callable[[str], Client], clock: Clock, settings: Settings, only: Callable[[str], bool] = lambda _: True
    ) -> None:
        kinds = tuple(kind for kind in KINDS if kind not in (EVENT, EVENT_V1) and "watch" in kind.verbs)
        self.cache = Cache(client=client_for(READER), sources=kinds)
        pods = Derived(self.cache, POD, pod_facts)
        self._recorders: list[Recorder] = []
        self._runners: list[Runner] = []
        for name, make in CONTROLLERS:
            if not only(name):
                continue
            client = client_for(user_of(name))
            recorder = Recorder(client=client, component=name, clock=clock)
            tools = Tools(client=TrackingClient(client), cache=self.cache, events=recorder, clock=clock, pods=pods)
            self._recorders.append(recorder)
            self._runners.append(Runner(make(tools, settings), self.cache))

    async def run(self, ready: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.cache.run(), name="controllers/cache")
            for recorder in self._recorders:
                group.create_task(recorder.run(), name=recorder.name)
            await self.cache.wait_synced()
            for runner in self._runners:
                group.create_task(runner.run(), name=f"controllers/{runner.name}")
            ready.set()
