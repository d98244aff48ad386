"""Statuses to the API: only on change, newest first, one write per pod at a time; and the last delete when a pod is gone from this node.

Writes pods/status and deletes pods (grace 0, with the uid as precondition). While the API is away statuses wait here, one per pod.
Upstream: pkg/kubelet/status/status_manager.go.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgekube.api.catalog import POD
from edgekube.api.types import Obj
from edgekube.client.protocol import Client
from edgekube.errors import ApiError, Conflict, Forbidden, Invalid, NotFound
from edgekube.kubelet.static.manifest import is_static
from edgekube.kubelet.status import OURS
from edgekube.lib.backoff import Backoff
from edgekube.lib.queue import WorkQueue

log = logging.getLogger(__name__)

WORKERS = 4


@dataclass(slots=True)
class _Entry:
    pod: Obj  # the newest version seen from the API
    status: Obj | None = None  # what it should be; None: nothing to say
    delete: bool = False
    written: Obj | None = None  # what the API is known to have from us
    shown: bool = True  # False: a static pod without a mirror, nobody to tell it to


class Reporter:
    """See the module. `run` does the writing."""

    name = "kubelet-status"

    def __init__(self, *, client: Client) -> None:
        self._client = client
        self._entries: dict[str, _Entry] = {}
        self._queue: WorkQueue[str] = WorkQueue()
        self._backoff = Backoff(base=0.1, cap=30.0, jitter=0.3)
        self._settled: Callable[[str], None] = lambda _uid: None

    def on_settled(self, notify: Callable[[str], None]) -> None:
        """Call `notify(uid)` after each status the API has accepted."""
        self._settled = notify

    def seen(self, pod: Obj) -> None:
        """A newer version of the pod came from the API. Where it says something else than we have written, we say it again: others mark
        pods of a node that was silent as not ready."""
        uid = pod["metadata"]["uid"]
        entry = self._entries.get(uid)
        if entry is not None:
            self._seen(uid, entry, pod)

    def mirror(self, uid: str, mirror: Obj | None) -> None:
        """The pod in the API that shows the status of this static pod, or none does. A new one knows nothing of it yet."""
        if mirror is None:
            if (known := self._entries.get(uid)) is not None:
                known.shown = False
            return
        entry = self._entries.setdefault(uid, _Entry(mirror, shown=False))
        if entry.shown and entry.pod["metadata"]["uid"] == mirror["metadata"]["uid"]:
            self._seen(uid, entry, mirror)
            return
        entry.pod, entry.written, entry.shown = mirror, None, True
        self._queue.add(uid)

    def _seen(self, uid: str, entry: _Entry, pod: Obj) -> None:
        if _revision(pod) < _revision(entry.pod):
            return
        entry.pod = pod
        if entry.status is None or entry.written is None or not same(entry.written, entry.status):
            return  # it is being written, or will be
        theirs = pod.get("status") or {}
        if not same(theirs, merge_status(theirs, entry.written)):
            entry.written = None
            self._queue.add(uid)

    def report(self, pod: Obj, status: Obj) -> None:
        """Make the API show `status`."""
        uid = pod["metadata"]["uid"]
        entry = self._entries.setdefault(uid, _Entry(pod, shown=not is_static(pod)))
        entry.status = status
        if entry.written is None or not same(entry.written, status):
            self._queue.add(uid)

    def delete(self, pod: Obj) -> None:
        """Everything of the pod is gone from this node: let the API forget it, after its last status."""
        uid = pod["metadata"]["uid"]
        entry = self._entries.setdefault(uid, _Entry(pod))
        entry.delete = True
        self._queue.add(uid)

    def retry(self) -> None:
        """The API is there again: what it has not heard yet, now."""
        for uid, entry in self._entries.items():
            if entry.delete or not self.settled(uid):
                self._backoff.forget(uid)
                self._queue.add(uid)

    def forget(self, uid: str) -> None:
        self._entries.pop(uid, None)
        self._backoff.forget(uid)

    def current(self, uid: str) -> Obj | None:
        """The newest status, whether the API has it or not."""
        entry = self._entries.get(uid)
        return None if entry is None else entry.status

    def settled(self, uid: str) -> bool:
        """The API has the newest status."""
        entry = self._entries.get(uid)
        return entry is None or entry.status is None or (entry.written is not None and same(entry.written, entry.status))

    async def run(self, ready: asyncio.Event | None = None) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(WORKERS):
                group.create_task(self._work(), name=f"status/{number}")
            if ready is not None:
                ready.set()

    async def _work(self) -> None:
        while True:
            uid = await self._queue.get()
            try:
                await self._write(uid)
                self._backoff.forget(uid)
            except (NotFound, Forbidden, Invalid) as error:
                self._refused(uid, error)
            except ApiError as error:
                log.debug("status not written yet", extra={"uid": uid, "error": error.message})
                self._queue.add_after(uid, self._backoff.delay(uid))
            finally:
                self._queue.done(uid)

    def _refused(self, uid: str, error: ApiError) -> None:
        """Trying again at once would not help; a later change of the pod or its status will try again."""
        entry = self._entries.get(uid)
        if not isinstance(error, NotFound):
            log.warning("status refused", extra={"uid": uid, "error": error.message})
            self._queue.add_after(uid, 30.0)
        elif entry is not None:
            entry.written, entry.delete = entry.status, False

    async def _write(self, uid: str) -> None:
        entry = self._entries.get(uid)
        if entry is None or not entry.shown:
            return
        status = entry.status
        if status is not None and (entry.written is None or not same(entry.written, status)):
            if not await self._update(entry, uid, status):
                return
            self._settled(uid)
        if entry.delete and entry.status is status:
            metadata = entry.pod["metadata"]
            try:
                await self._client.delete(POD, metadata["name"], metadata["namespace"], grace_seconds=0, uid=uid)
            except (NotFound, Conflict):
                log.debug("pod was gone already", extra={"uid": uid})
            entry.delete = False

    async def _update(self, entry: _Entry, uid: str, status: Obj) -> bool:
        """False: this pod is no longer the one in the API."""
        base = entry.pod
        known = base["metadata"]["uid"]
        for _ in range(5):
            if "resourceVersion" not in base["metadata"]:  # remembered, with a status the API may not have (client/shadow.py)
                base = await self._client.get(POD, base["metadata"]["name"], base["metadata"]["namespace"])
                if base["metadata"]["uid"] != known:
                    entry.written, entry.delete = status, False
                    return False
            merged = merge_status(base.get("status") or {}, status)
            if "resourceVersion" in base["metadata"] and same(base.get("status") or {}, merged):
                entry.written = status
                return True
            try:
                answer = await self._client.update(POD, {**base, "status": merged}, subresource="status")
            except Conflict:
                base = await self._client.get(POD, base["metadata"]["name"], base["metadata"]["namespace"])
                if base["metadata"]["uid"] != known:
                    entry.written, entry.delete = status, False
                    return False
                entry.pod = base
                continue
            entry.pod, entry.written = answer, status
            return True
        raise Conflict("the pod changes faster than its status can be written")


def _revision(pod: Obj) -> int:
    return int(pod["metadata"].get("resourceVersion") or 0)


def merge_status(theirs: Obj, ours: Obj) -> Obj:
    """Our status with the conditions that others own as the API has them now."""
    mine = {entry["type"]: entry for entry in ours.get("conditions") or ()}
    kept = [entry for entry in theirs.get("conditions") or () if entry["type"] not in OURS and entry["type"] not in mine]
    foreign = {entry["type"] for entry in theirs.get("conditions") or ()} - set(OURS)
    by_type = {entry["type"]: entry for entry in theirs.get("conditions") or ()}
    own = []
    for name, entry in mine.items():
        if name in OURS or name == "DisruptionTarget":
            own.append(entry)
        elif name in foreign:
            own.append(by_type[name])
    merged = {**ours, "conditions": kept + own}
    for name in ("nominatedNodeName", "resize", "resourceClaimStatuses"):
        if name in theirs and name not in merged:
            merged[name] = theirs[name]
    return merged


def same(old: Obj, new: Obj) -> bool:
    """Equal but for what carries no news: null and empty fields."""
    return bool(_plain(old) == _plain(new))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        found = {name: _plain(entry) for name, entry in value.items()}
        return {name: entry for name, entry in found.items() if entry not in (None, {}, [], "", False, 0)}
    if isinstance(value, list):
        entries = [_plain(entry) for entry in value]
        if entries and all(isinstance(entry, dict) and "type" in entry and "status" in entry for entry in entries):
            return sorted(entries, key=lambda entry: str(entry["type"]))
        return entries
    return value
