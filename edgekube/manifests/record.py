"""The record in the cluster: ConfigMap kube-system/edgekube-manifests, one JSON document of files and the objects each declared."""

from collections.abc import Iterable

import orjson

from edgekube.api.catalog import CONFIG_MAP
from edgekube.api.types import Obj
from edgekube.client.protocol import Client
from edgekube.errors import NotFound
from edgekube.manifests.files import Ref
from edgekube.manifests.plan import Entry, Record

NAME, NAMESPACE, KEY = "edgekube-manifests", "kube-system", "files"


def encoded(record: Record) -> str:
    """Sorted, so that the same record is the same text."""
    files = {name: {"sha256": entry.sha256, "objects": [list(ref) for ref in sorted(entry.refs)]} for name, entry in sorted(record.items())}
    return orjson.dumps(files).decode()


def decoded(text: str) -> Record:
    """Raises ValueError."""
    try:
        return {name: Entry(entry["sha256"], frozenset(_refs(entry["objects"]))) for name, entry in orjson.loads(text).items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a record of manifests: {error}") from error


def _refs(found: Iterable[Iterable[str]]) -> Iterable[Ref]:
    return (Ref(*parts) for parts in found)


class Records:
    """Loads once; saves only what has changed."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._saved: str | None = None

    async def load(self) -> Record:
        """Empty where there is none. Raises ApiError, ValueError."""
        try:
            found = await self._client.get(CONFIG_MAP, NAME, NAMESPACE)
        except NotFound:
            return {}
        text = str((found.get("data") or {}).get(KEY) or "{}")
        self._saved = text
        return decoded(text)

    async def save(self, record: Record) -> None:
        """Raises ApiError."""
        text = encoded(record)
        if text == self._saved or (self._saved is None and not record):
            return
        body: Obj = {"metadata": {"name": NAME, "namespace": NAMESPACE}, "data": {KEY: text}}
        try:
            await self._client.update(CONFIG_MAP, body)
        except NotFound:
            await self._client.create(CONFIG_MAP, body)
        self._saved = text
