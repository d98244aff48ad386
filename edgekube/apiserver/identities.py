"""Who may speak as a node: the pinned keys, followed through the store, and who hears when one is good no longer.

Context: a node's certificate holds for a year, and the authority keeps no list of revoked ones. Decision: a certificate of system:nodes
counts only together with the pin of its node (api/nodeidentity.py): its key must be the pinned one and must not be revoked under any name.
A check is two dict look-ups. Whoever keeps something open for a node (connections, tunnels) registers with `on_revoked`.

The server's own node speaks in process; its certificate (pki/kubelet-client.pem) is trusted by key, and nobody else gets its name.
Deleting a Node revokes nothing. What all this is good for: the threat model in edgekube.agent, claims 8 to 13 and 18.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from edgekube.api import catalog
from edgekube.api import nodeidentity as pins
from edgekube.api.item import Item
from edgekube.api.nodeidentity import Pin
from edgekube.apiserver.objects import Objects
from edgekube.lib import der

log = logging.getLogger(__name__)

OnRevoked = Callable[[str], None]


class NodeIdentities:
    """The pins of all nodes. `on_revoked` callbacks run right after the change is published, each on its own: one that fails hinders
    neither the store nor the others."""

    def __init__(self, objects: Objects) -> None:
        self._pins: dict[str, Pin] = {}
        self._revoked: dict[str, int] = {}  # key -> under how many names
        self._own: dict[str, str] = {}
        self._listeners: list[OnRevoked] = []
        self._stop = objects.follow(catalog.SECRET, self._changed)

    def close(self) -> None:
        """Follow no longer."""
        self._stop()

    def trust_own(self, node: str, credential: Path) -> None:
        """The server's own node is who holds the key of this file; call again when it was renewed."""
        import ssl

        pem = credential.read_text()
        start = pem.index("-----BEGIN CERTIFICATE-----")
        self._own[node] = der.key_digest(ssl.PEM_cert_to_DER_cert(pem[start : pem.index("-----END CERTIFICATE-----") + 25]))

    def on_revoked(self, callback: OnRevoked) -> None:
        """Call `callback(node)` when the key a node was known by is good no longer: revoked, or replaced by another machine's."""
        self._listeners.append(callback)

    def pin(self, node: str) -> Pin | None:
        return self._pins.get(node)

    def problem(self, node: str, key: str) -> str:
        """Why the holder of `key` is not `node`; "" if he is."""
        pin = self._pins.get(node)
        if key in self._revoked:
            return f"the key of node {node} was revoked"
        if pin is not None and pin.key == key:
            return ""
        if self._own.get(node) == key:
            return ""
        if pin is None:
            return f"node {node} is not known here: it must join, with a token"
        return f"node {node} is another machine now: this one must join again, with a token"

    def _changed(self, old: Item | None, new: Item | None) -> None:
        item = new or old
        if item is None or not pins.is_pin(item):
            return
        node = item.key.name.removesuffix(pins.SUFFIX)
        before, after = self._pins.get(node), None if new is None else pins.read(new.decode())
        self._count(before, -1)
        self._count(after, 1)
        if after is None:
            self._pins.pop(node, None)
        else:
            self._pins[node] = after
        if before is not None and before.trusts(before.key) and (after is None or not after.trusts(before.key)):
            log.info("node identity withdrawn", extra={"node": node, "revoked": after is not None and after.revoked})
            for tell in self._listeners:
                asyncio.get_running_loop().call_soon(tell, node)

    def _count(self, pin: Pin | None, step: int) -> None:
        for key in pin.revoked_keys if pin is not None else ():
            left = self._revoked.get(key, 0) + step
            if left:
                self._revoked[key] = left
            else:
                self._revoked.pop(key, None)
