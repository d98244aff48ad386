"""A container, or a whole pod, down: preStop inside the grace period, then the stop signal, then SIGKILL; sidecars after the main ones.

Idempotent: what has ended is left alone, so a shorter grace period simply starts it again.
Upstream: kuberuntime_container.go killContainer, kuberuntime_termination_order.go.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

from edgekube.api.types import Obj
from edgekube.kubelet import lifecycle, podspec
from edgekube.kubelet.context import NodeContext
from edgekube.kubelet.plan import LIVENESS, STARTUP
from edgekube.kubelet.runtime.protocol import ContainerInfo

MINIMUM = 2.0  # seconds every container gets after its hook
PROBES = {LIVENESS: "livenessProbe", STARTUP: "startupProbe"}


def container_grace(pod: Obj, container: Obj | None, reason: str) -> float:
    """The pod's grace, or the one the failed probe has of its own."""
    if not podspec.is_deleting(pod) and container is not None and reason in PROBES:
        own = (container.get(PROBES[reason]) or {}).get("terminationGracePeriodSeconds")
        if own is not None:
            return float(own)
    return podspec.grace_period(pod)


class Ordering:
    """Who waits for whom: main containers end first, then sidecars from the last to the first."""

    def __init__(self, pod: Obj, running: Sequence[str]) -> None:
        self._ended: dict[str, asyncio.Event] = {name: asyncio.Event() for name in running}
        self._before: dict[str, list[str]] = {name: [] for name in running}
        waits: list[str] = [c["name"] for c in podspec.containers(pod) if c["name"] in self._ended]
        for container in reversed(podspec.init_containers(pod)):
            name = container["name"]
            if name in self._ended:
                self._before[name] = list(waits)
                if podspec.is_sidecar(container):
                    waits.append(name)

    async def turn(self, name: str, limit: float) -> None:
        """Until those before have ended, at most `limit` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                for other in self._before.get(name, ()):
                    await self._ended[other].wait()

    def ended(self, name: str) -> None:
        self._ended[name].set()


class Killer:
    """See the module."""

    def __init__(self, node: NodeContext) -> None:
        self._node = node

    async def kill_container(
        self,
        pod: Obj,
        info: ContainerInfo,
        *,
        message: str = "",
        reason: str = "",
        grace: float | None = None,
        ordering: Ordering | None = None,
    ) -> None:
        """Returns when it has ended."""
        node, container = self._node, podspec.find_container(pod, info.name)
        loop = asyncio.get_running_loop()
        left = container_grace(pod, container, reason) if grace is None else grace
        node.events.container(pod, info.name, "Killing", message or f"Stopping container {info.name}")
        deadline = loop.time() + left
        handler = ((container or {}).get("lifecycle") or {}).get("preStop")
        try:
            if container is not None and handler and left > 0:
                await self._pre_stop(pod, container, handler, info, left)
            if ordering is not None and deadline > loop.time():
                await ordering.turn(info.name, deadline - loop.time())
            await node.runtime.stop(info.id, max(MINIMUM, deadline - loop.time()))
        finally:
            if ordering is not None:
                ordering.ended(info.name)

    async def _pre_stop(self, pod: Obj, container: Obj, handler: Obj, info: ContainerInfo, limit: float) -> None:
        node = self._node
        ips = node.host_ips() if podspec.host_network(pod) else node.network.addresses(pod["metadata"]["uid"])
        try:
            await lifecycle.run_handler(pod, container, handler, info.id, runtime=node.runtime, pod_ips=ips, timeout=limit)
        except TimeoutError:
            pass  # the hook had the whole grace period; what is left is the minimum
        except lifecycle.HookFailed as error:
            node.events.container(pod, info.name, "FailedPreStopHook", f"PreStopHook failed: {error}", warning=True)

    async def kill_pod(self, pod: Obj, containers: Sequence[ContainerInfo], *, grace: float | None = None) -> None:
        """Everything that runs, at once but for the order of sidecars. Raises what a stop raised, after all have been tried."""
        running: Mapping[str, ContainerInfo] = {info.name: info for info in containers if info.state == "running"}
        ordering = Ordering(pod, list(running))
        ends = [self.kill_container(pod, info, grace=grace, ordering=ordering) for info in running.values()]
        results = await asyncio.gather(*ends, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
