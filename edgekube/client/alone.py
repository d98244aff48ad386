"""What a node that is alone tells its own parts: remembered objects, with what has become of its pods since.

The kubelet's statuses that the server has not heard are noted (so they outlive a restart); pods are told with them, and endpoints of these
pods follow (localendpoints.py): watchers of EndpointSlices, the proxy and the DNS, hear of it as of any change. What is told so has a
revision of its own or none, and every list of the server replaces it.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import orjson

from edgekube.api import meta
from edgekube.api.catalog import ENDPOINT_SLICE, POD, SERVICE
from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.types import Key, Obj
from edgekube.client.contact import Contact
from edgekube.client.localendpoints import adjusted
from edgekube.client.protocol import Change, ChangeType
from edgekube.client.shadowstore import Picture, ShadowStore
from edgekube.errors import Expired
from edgekube.lib.tasks import TaskScope

SERVICE_NAME = "kubernetes.io/service-name"


class Alone:
    """See the module."""

    def __init__(self, store: ShadowStore, contact: Contact) -> None:
        self._store, self._contact = store, contact
        self._changed = asyncio.Event()  # replaced at each change, so that all who wait hear of it

    # statuses

    def not_heard(self, pod: Obj) -> None:
        """The server could not be told this status."""
        uid = pod["metadata"].get("uid", "")
        if self._store.find(POD, meta.key_of(pod)) is not None:
            self._store.set_note(_note(uid), meta.encode(pod.get("status") or {}))
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    def heard(self, pod: Obj) -> None:
        """The server has this version, with our status."""
        self._store.set_note(_note(pod["metadata"]["uid"]), None)
        self._store.learn(POD, meta.item_of(POD, meta.encode(pod), int(pod["metadata"]["resourceVersion"]), pod))

    # telling

    def told(self, picture: Picture) -> list[Item]:
        """Everything of a source. What differs from the server's version has revision 0: a list of the server replaces it."""
        if picture.source.kind == ENDPOINT_SLICE:
            pods = self._pods()
            return [self._slice(item, pods) or item for item in picture.items()]
        return [self.one(picture.source.kind, item) for item in picture.items()]

    def one(self, kind: Kind, item: Item) -> Item:
        """A pod has the newest status, and no version: that is the server's to give."""
        status = self._store.note(_note(item.uid)) if kind == POD else None
        if status is None:
            return item
        pod = item.decode()
        pod["metadata"].pop("resourceVersion", None)
        pod["status"] = orjson.loads(status)
        return meta.item_of(kind, meta.encode(pod), 0, pod)

    def _pods(self) -> dict[str, Obj]:
        return {item.uid: self.one(POD, item).decode() for item in self._store.items(POD)}

    def _slice(self, item: Item, pods: dict[str, Obj], revision: int = 0) -> Item | None:
        if b'"targetRef"' not in item.raw:
            return None
        endpoints = item.decode()
        service = self._store.find(SERVICE, Key(item.namespace, item.labels.get(SERVICE_NAME, "")))
        publish_all = service is not None and bool(service.decode()["spec"].get("publishNotReadyAddresses"))
        found = adjusted(endpoints, pods, publish_all=publish_all)
        return None if found is None else meta.item_of(ENDPOINT_SLICE, meta.encode(found), revision, found)

    async def changes(self, picture: Picture | None, revision: int) -> AsyncGenerator[Sequence[Change], None]:
        """A watch while the server is away: of EndpointSlices what local pods change. Ends with Expired when the server is back."""
        if picture is None or picture.source.kind != ENDPOINT_SLICE:
            await self._contact.wait()
            raise Expired("the server was away: list again")
        last = {item.key: item.raw for item in (self.told(picture) if revision == 0 else picture.items())}
        async with TaskScope("alone") as scope:
            back = scope.spawn(self._contact.wait(), name="contact")
            while not back.done():
                changed = scope.spawn(self._changed.wait(), name="change")
                batch = []
                pods = self._pods()
                for item in picture.items():
                    found = self._slice(item, pods, revision + 1) or item
                    if last.get(item.key) != found.raw:
                        revision, last[item.key] = revision + 1, found.raw
                        batch.append(Change(ChangeType.MODIFIED, meta.item_of(ENDPOINT_SLICE, found.raw, revision)))
                if batch:
                    yield batch
                await asyncio.wait((back, changed), return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
        raise Expired("the server was away: list again")


def _note(uid: str) -> str:
    return f"pod/{uid}/status"
