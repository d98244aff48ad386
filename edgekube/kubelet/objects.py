"""The ConfigMaps and Secrets that this node's pods refer to: watched one by one while a pod needs them.

Reads them through the client's ObjectTracker; tells which pods a change concerns, so that volumes are updated by events, not by polling.
"""

import asyncio
import base64
import contextlib
from collections.abc import Callable

from edgekube.api.catalog import CONFIG_MAP, SECRET
from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.podrefs import references
from edgekube.api.types import Key, Obj
from edgekube.client.protocol import Client
from edgekube.client.watched import ObjectTracker

Reference = tuple[Kind, Key]
WAIT_SECONDS = 10.0


class PodObjects:
    """References are counted per pod; the last pod to go ends a watch."""

    def __init__(self, *, client: Client) -> None:
        self._tracker = ObjectTracker(client=client)
        self._held: dict[str, set[Reference]] = {}
        self._users: dict[Reference, set[str]] = {}
        self._notify: Callable[[str], None] = lambda _uid: None
        self._tracker.on_change(self._changed)

    async def close(self) -> None:
        await self._tracker.close()

    def on_change(self, notify: Callable[[str], None]) -> None:
        """Call `notify(pod_uid)` when something that pod refers to has changed."""
        self._notify = notify

    def hold(self, pod: Obj) -> None:
        """Watch what the pod refers to now, and no longer what it referred to before."""
        uid, wanted = pod["metadata"]["uid"], references(pod)
        held = self._held.setdefault(uid, set())
        for ref in wanted - held:
            self._tracker.hold(*ref)
            self._users.setdefault(ref, set()).add(uid)
        for ref in held - wanted:
            self._drop(uid, ref)
        self._held[uid] = wanted

    def release(self, uid: str) -> None:
        for ref in self._held.pop(uid, set()):
            self._drop(uid, ref)

    def _drop(self, uid: str, ref: Reference) -> None:
        users = self._users.get(ref, set())
        users.discard(uid)
        if not users:
            self._users.pop(ref, None)
        self._tracker.release(*ref)

    async def ready(self, pod: Obj) -> None:
        """Until the state of everything the pod refers to is known. Raises TimeoutError after 10 s (API away)."""
        for kind, key in references(pod):
            if not self._tracker.known(kind, key):
                async with asyncio.timeout(WAIT_SECONDS):
                    await self._tracker.acquire(kind, key)
                    self._tracker.release(kind, key)

    def find(self, kind: Kind, key: Key) -> Obj | None:
        item = self._tracker.get(kind, key)
        return None if item is None else item.decode()

    def config_map(self, key: Key) -> Obj | None:
        return self.find(CONFIG_MAP, key)

    def secret(self, key: Key) -> Obj | None:
        return self.find(SECRET, key)

    def _changed(self, kind: Kind, key: Key, _item: Item | None) -> None:
        for uid in tuple(self._users.get((kind, key), ())):
            self._notify(uid)


def payload(kind: Kind, obj: Obj) -> dict[str, bytes]:
    """The keys of a ConfigMap or Secret with their bytes."""
    if kind == SECRET:
        return {key: base64.b64decode(value or "") for key, value in (obj.get("data") or {}).items()}
    found = {key: value.encode() for key, value in (obj.get("data") or {}).items()}
    for key, value in (obj.get("binaryData") or {}).items():
        with contextlib.suppress(ValueError):
            found[key] = base64.b64decode(value)
    return found
