"""Only nodes may put packets into the overlay: a small nftables table of our own drops encapsulated ones from anybody else.

Context: VXLAN has no authentication. A pod that sends UDP to its own node's tunnel port could wrap packets with any sender it likes, past
every NetworkPolicy, and so could any machine that reaches the port. Decision: the tunnel port is open to the addresses of this cluster's
nodes alone (pods can not use those: their links have a strict reverse path filter). Forwarded packets do not pass the rule.

Writes the table `edgekube_<instance>_overlay`, whole, in one transaction, when the nodes' addresses change; a flush is undone. Without
nftables nothing is dropped, and that is said once.
"""

import asyncio
import logging
from collections.abc import Collection

from edgekube.lib.backoff import Backoff
from edgekube.lib.nft import Nft, NftError, TableWatch
from edgekube.lib.process import ProgramMissing
from edgekube.network.model import family

log = logging.getLogger(__name__)

FAMILY = "inet"


def table_name(instance: str) -> str:
    return f"edgekube_{instance}_overlay"


def rules(table: str, port: int, nodes: Collection[str]) -> str:
    """The whole table, in one transaction, whatever of it is there; without nodes: no table. Pure."""
    at = f"{FAMILY} {table}"
    lines = [f"add table {at}"]
    if not nodes:
        return f"add table {at}\ndelete table {at}\n"
    lines += [f"add chain {at} input {{ type filter hook input priority -10; }}", f"flush chain {at} input"]
    for kind, name, type_, header in ((4, "nodes", "ipv4_addr", "ip"), (6, "nodes6", "ipv6_addr", "ip6")):
        found = sorted(address for address in nodes if family(address) == kind)
        lines += [f"add set {at} {name} {{ type {type_}; }}", f"flush set {at} {name}"]
        lines += [f"add element {at} {name} {{ {', '.join(found)} }}"] if found else []
        lines.append(f"add rule {at} input udp dport {port} {header} saddr != @{name} drop")
    return "\n".join(lines) + "\n"


class Guard:
    """`want` says whose packets are let in; `run` keeps the table so."""

    def __init__(self, *, instance: str, port: int) -> None:
        self._table, self._port = table_name(instance), port
        self._nodes: frozenset[str] = frozenset()
        self._written: frozenset[str] | None = None  # None: not known, what an earlier run left may be there
        self._news = asyncio.Event()
        self._silent = False

    def want(self, nodes: Collection[str]) -> None:
        """The addresses of all other nodes."""
        if (wanted := frozenset(nodes)) != self._nodes or self._written is None:
            self._nodes = wanted
            self._news.set()

    async def run(self) -> None:
        nft, watch, backoff = Nft(), TableWatch(self._table, self._flushed), Backoff(base=0.2, cap=30.0, jitter=0.2)
        watch.start()
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                nodes = self._nodes
                if nodes == self._written:
                    continue
                try:
                    with watch.own_change():
                        await nft.apply_whole(rules(self._table, self._port, nodes))
                    self._written = nodes
                    backoff.forget("")
                except (NftError, ProgramMissing) as error:
                    await self._refused(error, backoff.delay(""))
        finally:
            watch.close()
            nft.close()

    async def _refused(self, error: Exception, delay: float) -> None:
        if not self._silent:
            log.warning("the overlay's port is not guarded: others may put packets into it", extra={"error": str(error)})
        self._silent = True
        await asyncio.sleep(delay)
        self._news.set()

    def _flushed(self) -> None:
        if not self._nodes:
            return  # there is to be none
        log.warning("somebody changed our nftables table; writing it again", extra={"table": self._table})
        self._written = None
        self._news.set()


async def remove_guard(instance: str) -> None:
    """For uninstall."""
    nft = Nft()
    try:
        await nft.delete_table(table_name(instance), FAMILY)
    finally:
        nft.close()
