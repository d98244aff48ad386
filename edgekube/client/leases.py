"""Leader election on a Lease: of several that want to lead, one does, until it stops renewing.

Reads and writes one Lease of coordination.k8s.io. Promises, on clocks that run at about one speed: at most one leader at a time, because a
leader gives up after `renew_seconds` without a successful renewal, which is sooner than others take over (`lease_seconds` after the last
change they saw, by their own monotonic clock; the times in the Lease are for people).
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from edgekube.api.catalog import LEASE
from edgekube.api.types import Obj
from edgekube.client.protocol import Client
from edgekube.errors import AlreadyExists, ApiError, NotFound
from edgekube.lib.clock import Clock, rfc3339_micro

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectionConfig:
    """Which Lease, and how patient."""

    name: str
    identity: str
    namespace: str = "kube-system"
    lease_seconds: float = 15.0
    renew_seconds: float = 10.0
    retry_seconds: float = 2.0


class Election:
    """`run(lead)` waits, then leads until leadership is lost (RuntimeError) or it is cancelled; the Lease is given back."""

    def __init__(self, *, client: Client, config: ElectionConfig, clock: Clock) -> None:
        self._client, self._config, self._clock = client, config, clock
        self._seen: tuple[str, float] = ("", 0.0)  # the resourceVersion last seen, and when it was new

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        while True:
            if await self._try():
                break
            await asyncio.sleep(self._config.retry_seconds)
        log.info("became leader", extra={"lease": self._config.name, "identity": self._config.identity})
        try:
            async with asyncio.TaskGroup() as group:
                keep = group.create_task(self._keep(), name=f"election/{self._config.name}")
                await lead()
                keep.cancel()
        finally:
            with contextlib.suppress(ApiError, TimeoutError):
                async with asyncio.timeout(self._config.retry_seconds):
                    await self._give_back()

    async def _keep(self) -> None:
        renewed = self._clock.monotonic()
        while True:
            await asyncio.sleep(self._config.retry_seconds)
            if await self._try():
                renewed = self._clock.monotonic()
            elif self._clock.monotonic() - renewed > self._config.renew_seconds:
                raise RuntimeError(f"lost the lease {self._config.name}")

    async def _try(self) -> bool:
        """Take or renew the Lease; any refusal means not now."""
        try:
            lease = await self._client.get(LEASE, self._config.name, self._config.namespace)
        except NotFound:
            lease = None
        except ApiError as error:
            log.debug("lease not read", extra={"lease": self._config.name, "why": error.message})
            return False
        try:
            if lease is None:
                metadata = {"name": self._config.name, "namespace": self._config.namespace}
                fresh: Obj = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
                await self._client.create(LEASE, fresh | {"spec": self._spec({})}, self._config.namespace)
                return True
            if not self._may_take(lease):
                return False
            await self._client.update(LEASE, lease | {"spec": self._spec(lease.get("spec") or {})})
        except AlreadyExists:
            return False
        except ApiError as error:
            log.debug("lease not taken", extra={"lease": self._config.name, "why": error.message})
            return False
        return True

    def _may_take(self, lease: Obj) -> bool:
        now, version = self._clock.monotonic(), lease["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, now)
        holder = (lease.get("spec") or {}).get("holderIdentity") or ""
        return holder in ("", self._config.identity) or now - self._seen[1] >= self._config.lease_seconds

    def _spec(self, old: Obj) -> Obj:
        now, mine = rfc3339_micro(self._clock.now()), old.get("holderIdentity") == self._config.identity
        return {
            "holderIdentity": self._config.identity,
            "leaseDurationSeconds": math.ceil(self._config.lease_seconds),
            "acquireTime": old.get("acquireTime", now) if mine else now,
            "renewTime": now,
            "leaseTransitions": old.get("leaseTransitions", 0) + (0 if mine or not old else 1),
        }

    async def _give_back(self) -> None:
        lease = await self._client.get(LEASE, self._config.name, self._config.namespace)
        if (lease.get("spec") or {}).get("holderIdentity") == self._config.identity:
            spec = lease["spec"] | {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": rfc3339_micro(self._clock.now())}
            await self._client.update(LEASE, lease | {"spec": spec})
