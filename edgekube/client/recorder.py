"""Tell people what happened: write Events about objects, folded, counted and limited, never in the way of the work itself.

`event` only queues; one task writes. A full queue drops the Event and counts that. Reads nothing; writes Events. Promises that a recorder
never raises into its caller, never waits for the API, and costs no wake-up when nothing happens.
"""

import asyncio
import logging
import secrets
import socket
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from edgekube.api.catalog import EVENT
from edgekube.api.kind import Kind
from edgekube.api.types import Obj
from edgekube.client.correlate import Correlator, Known, Sighting
from edgekube.client.protocol import Client, PatchType
from edgekube.errors import AlreadyExists, ApiError, NotFound, ServerTimeout, ServiceUnavailable, Timeout, TooManyRequests
from edgekube.lib.backoff import Backoff
from edgekube.lib.clock import Clock, rfc3339, rfc3339_micro
from edgekube.lib.metrics import counter

log = logging.getLogger(__name__)

DROPPED = counter("edgekube_events_dropped_total", "Events that were not written: too many waited, or the server was away.")
QUEUE = 1000
TRIES = 6
NORMAL = "Normal"
WARNING = "Warning"
_LATER = (ServiceUnavailable, Timeout, ServerTimeout, TooManyRequests)


def reference(obj: Obj, kind: Kind, field_path: str = "") -> Obj:
    """An ObjectReference to `obj`, as Events carry it."""
    meta = obj.get("metadata", {})
    ref = {"kind": kind.kind, "apiVersion": kind.api_version, "namespace": meta.get("namespace", ""), "name": meta.get("name", "")}
    ref |= {"uid": meta.get("uid", ""), "resourceVersion": meta.get("resourceVersion", ""), "fieldPath": field_path}
    return {name: value for name, value in ref.items() if value}


@dataclass(frozen=True, slots=True)
class _Queued:
    ref: Obj
    sighting: Sighting
    related: Obj | None
    moment: str
    moment_micro: str
    stamp: int


class Recorder:
    """Events of one source (`component`, on `host` if it is a node's). `series=True` writes them as events.k8s.io reporters do."""

    def __init__(self, *, client: Client, component: str, clock: Clock, host: str = "", series: bool = False) -> None:
        self.name = f"events/{component}"
        self._client, self._component, self._clock, self._host, self._series = client, component, clock, host, series
        self._queue: asyncio.Queue[_Queued] = asyncio.Queue(QUEUE)
        self._correlator = Correlator()
        self._last_stamp = 0
        self._told = False  # that Events are not written

    def event(self, ref: Obj, kind: str, reason: str, message: str, *, action: str = "", related: Obj | None = None) -> None:
        """Something happened to what `ref` names (see `reference`). `kind` is NORMAL or WARNING."""
        subject = (ref.get("kind"), ref.get("namespace"), ref.get("name"), ref.get("uid"), ref.get("apiVersion"), ref.get("fieldPath"))
        now = self._clock.now()
        queued = _Queued(
            ref, Sighting(subject, kind, reason, message[:1024], action), related, rfc3339(now), rfc3339_micro(now), self._stamp(now)
        )
        try:
            self._queue.put_nowait(queued)
        except asyncio.QueueFull:
            DROPPED.inc()

    def _stamp(self, now: datetime) -> int:
        """Nanoseconds for an Event's name: never twice the same, and what happened later sorts behind, as clients list by name."""
        self._last_stamp = max(int(now.timestamp() * 1_000_000) * 1000 + secrets.randbelow(1000), self._last_stamp + 1)
        return self._last_stamp

    async def run(self, ready: asyncio.Event | None = None) -> None:
        """Write what is queued, until cancelled."""
        if ready is not None:
            ready.set()
        while True:
            queued = await self._queue.get()
            try:
                await self._write(queued)
                self._told = False
            except ApiError as error:
                DROPPED.inc()
                away = isinstance(error, ServiceUnavailable | Timeout)  # whoever has lost the server says so, once
                level = logging.DEBUG if self._told or away else logging.INFO
                self._told = self._told or isinstance(error, _LATER)
                log.log(level, "event not written", extra={"reason": queued.sighting.reason, "why": error.message})
            finally:
                self._queue.task_done()

    async def flush(self) -> None:
        """Until everything queued so far has been written or given up."""
        await self._queue.join()

    async def _write(self, queued: _Queued) -> None:
        now = self._clock.monotonic()
        message, known = self._correlator.correlate(queued.sighting, now)
        if not self._correlator.allow(queued.sighting.subject, now):
            return
        backoff = Backoff(base=0.2, cap=10.0, jitter=0.5)
        for attempt in range(TRIES):
            try:
                await self._write_once(queued, message, known)
                return
            except AlreadyExists:  # another reporter, the same object, the same nanosecond
                queued = replace(queued, stamp=queued.stamp + 1 + secrets.randbelow(1000))
            except _LATER:
                if attempt == TRIES - 1:
                    raise
                await asyncio.sleep(backoff.delay(""))

    async def _write_once(self, queued: _Queued, message: str, known: Known) -> None:
        namespace = queued.ref.get("namespace") or "default"
        if known.count:
            try:
                await self._client.patch(
                    EVENT, known.name, namespace, self._repetition(queued, message, known.count + 1), patch_type=PatchType.STRATEGIC
                )
                known.count += 1
                return
            except NotFound:
                known.count = 0  # it has expired: start over
        event = self._fresh(queued, message, namespace)
        await self._client.create(EVENT, event, namespace)
        known.name, known.count = event["metadata"]["name"], 1

    def _repetition(self, queued: _Queued, message: str, count: int) -> Obj:
        if self._series:
            return {"series": {"count": count, "lastObservedTime": queued.moment_micro}}
        return {"count": count, "lastTimestamp": queued.moment, "message": message}

    def _fresh(self, queued: _Queued, message: str, namespace: str) -> Obj:
        sighting = queued.sighting
        name = f"{queued.ref.get('name', '')[:230]}.{queued.stamp:x}"
        event: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": queued.ref,
            "reason": sighting.reason,
            "message": message,
            "type": sighting.type,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }
        if self._series:
            event |= {"eventTime": queued.moment_micro, "action": sighting.action or sighting.reason, "source": {}}
            event |= {
                "firstTimestamp": None,
                "lastTimestamp": None,
                "reportingInstance": self._host or f"{self._component}-{socket.gethostname()}",
            }
        else:
            source = {"component": self._component} | ({"host": self._host} if self._host else {})
            event |= {"source": source, "firstTimestamp": queued.moment, "lastTimestamp": queued.moment, "count": 1, "eventTime": None}
        if queued.related is not None:
            event["related"] = queued.related
        return event
