"""What all nodes of a cluster have alike: read from the API, kept on disk, followed.

Reads the ConfigMap kube-system/edgekube-cluster, which the server writes at its start; writes <data-dir>/agent/cluster.json. An agent
starts from that copy, with or without a server. When the server's settings change, `changed` is called: the node's parts start anew.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from edgekube.api.catalog import CONFIG_MAP
from edgekube.api.item import Item
from edgekube.client.index import KindStore
from edgekube.client.protocol import Client
from edgekube.client.reflector import Reflector, Source
from edgekube.lib.files import write_if_changed

log = logging.getLogger(__name__)

NAME, NAMESPACE = "edgekube-cluster", "kube-system"
FILE = "cluster.json"


def load(folder: Path) -> Mapping[str, str] | None:
    """The copy on disk; None if there is none, or none that can be read: then the API has to be asked."""
    try:
        found = json.loads((folder / FILE).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and all(isinstance(value, str) for value in found.values()) else None


def save(folder: Path, values: Mapping[str, str]) -> bool:
    """Tells whether it had to write."""
    return write_if_changed(folder / FILE, json.dumps(dict(values), indent=1, sort_keys=True).encode() + b"\n", mode=0o600)


async def fetch(client: Client) -> Mapping[str, str]:
    """Ask the API. Raises ApiError."""
    return _values(await client.get(CONFIG_MAP, NAME, NAMESPACE))


class SettingsWatch:
    """Component. `known` is what the node runs with."""

    name = "cluster-settings"

    def __init__(self, *, client: Client, folder: Path, known: Mapping[str, str], changed: Callable[[], None]) -> None:
        self._folder, self._known, self._changed = folder, dict(known), changed
        self._store = KindStore()
        self._store.on_change(self._look)
        self._reflector = Reflector(client, Source(CONFIG_MAP, namespace=NAMESPACE, fields=f"metadata.name={NAME}"), self._store)

    async def run(self, ready: asyncio.Event) -> None:
        ready.set()
        await self._reflector.run()

    def _look(self, _old: Item | None, new: Item | None) -> None:
        if new is None:  # deleted by somebody: the server writes it again at its next start
            return
        values = dict(_values(new.decode()))
        if values == self._known:
            return
        names = sorted(name for name in {*values, *self._known} if values.get(name) != self._known.get(name))
        log.info("settings of the cluster changed", extra={"settings": ",".join(names)})
        self._known = values
        save(self._folder, values)
        self._changed()


def _values(obj: Mapping[str, object]) -> Mapping[str, str]:
    found = obj.get("data")
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}
