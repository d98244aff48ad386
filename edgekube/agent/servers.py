"""Where servers may be: what was configured, what servers told of themselves, and what was heard on the local network.

The file remembers what helped last time, so that an agent finds its way after a restart although everything was renumbered meanwhile. It is
written only when it changes, and a file that cannot be read counts as empty: all of it is hints.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgekube.agent.dial import Address, parse_address
from edgekube.agent.race import in_order
from edgekube.lib.files import write_if_changed

log = logging.getLogger(__name__)

_KEPT = 16
_HINTS = 8  # from anybody: each may cost a quarter of a second before what is known is tried


class Servers:
    """All known addresses. `path` None keeps nothing."""

    def __init__(self, configured: Sequence[Address], path: Path | None = None) -> None:
        self._configured, self._path = tuple(configured), path
        self._told, self._last = _read(path)
        self._heard: tuple[Address, ...] = ()

    def candidates(self) -> list[Address]:
        """The most promising first."""
        return in_order((*self._heard, *self._configured, *self._told), self._last)

    def told(self, addresses: Iterable[Address]) -> None:
        """A server that proved itself says where servers are."""
        found = tuple(dict.fromkeys(addresses))[:_KEPT]
        if found and found != self._told:
            self._told = found
            self._save()

    def heard(self, addresses: Iterable[Address]) -> bool:
        """Somebody on the local network says where the server is. Whether that is news."""
        fresh = [each for each in addresses if each not in self._heard]
        known = {*self._configured, *self._told}
        self._heard = (*fresh, *self._heard)[:_HINTS]
        return any(each not in known for each in fresh)

    def worked(self, address: Address) -> None:
        """There is a server."""
        self._heard = ()
        if address != self._last:
            self._last = address
            self._save()

    def _save(self) -> None:
        if self._path is None:
            return
        content = {"last": str(self._last or ""), "told": [str(each) for each in self._told]}
        try:
            write_if_changed(self._path, json.dumps(content).encode() + b"\n", mode=0o600)
        except OSError as error:
            log.warning("addresses of servers not kept", extra={"path": str(self._path), "error": str(error)})


def _read(path: Path | None) -> tuple[tuple[Address, ...], Address | None]:
    if path is None:
        return (), None
    try:
        content = json.loads(path.read_bytes())
        told = tuple(parse_address(str(each)) for each in content["told"])[:_KEPT]
        return told, parse_address(content["last"]) if content["last"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return (), None
