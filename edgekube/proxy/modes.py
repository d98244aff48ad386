"""Which backend a node uses: the one that is wanted, else the next that this kernel can do, and no rules of any other stay.

    nftables > iptables > userspace      `--proxy-mode` puts another first; ipvs is never chosen by itself

The first rewrite decides: if it is refused, and so is one without any Service (a dry run of everything around them), the kernel can not do
it, and the next is tried. That costs nothing where all is well. Which backend has left rules here is remembered in the run directory (a
reboot clears both): a node that changes its mode removes those of the old one, after the new ones are in force.
"""

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from edgekube.lib.process import ProgramMissing
from edgekube.proxy.backend import Backend, BackendError, Node
from edgekube.proxy.model import Targets

log = logging.getLogger(__name__)

MODES = ("nftables", "iptables", "ipvs", "userspace")
FALL_BACK = ("nftables", "iptables", "userspace")
_FILE = "proxy-mode"

Passed = Callable[[str, str, str], None]  # wanted, used, why


def make(mode: str, node: Node) -> Backend:
    """The backend of that name; what others need is not loaded."""
    if mode == "iptables":
        from edgekube.proxy.iptables import IptablesBackend

        return IptablesBackend(node)
    if mode == "ipvs":
        from edgekube.proxy.ipvs import IpvsBackend

        return IpvsBackend(node)
    if mode == "userspace":
        from edgekube.proxy.userspace import UserspaceBackend

        return UserspaceBackend(node)
    from edgekube.proxy.nftables import NftablesBackend

    return NftablesBackend(node)


class ChosenBackend:
    """See the module. `passed` is told when another than the wanted one is used."""

    def __init__(
        self,
        node: Node,
        *,
        wanted: str = "",
        run_dir: Path | None = None,
        passed: Passed | None = None,
        maker: Callable[[str, Node], Backend] = make,
    ) -> None:
        self.name = wanted or FALL_BACK[0]
        self._node, self._wanted, self._passed, self._make = node, self.name, passed, maker
        self._file = run_dir / _FILE if run_dir is not None else None
        self._left = [mode for mode in FALL_BACK if mode != self._wanted]
        self._backend: Backend | None = None
        self._settled = False
        self._notify: Callable[[], None] | None = None

    def watch(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        if self._backend is not None:
            self._watch(self._backend)

    def _watch(self, backend: Backend) -> None:
        if self._notify is not None:
            with contextlib.suppress(OSError):  # a kernel without such events has no such rules: the rewrite tells
                backend.watch(self._notify)

    async def replace(self, targets: Targets) -> None:
        if self._backend is None:
            self._start(self._wanted)
        backend = self._started()
        if self._settled:
            await backend.replace(targets)
            return
        self._forget_others()
        why = ""
        while True:
            try:
                await backend.replace(targets)
                break
            except BackendError as error:
                if not self._left or await _works(backend):
                    raise
                why = f"{why}; {backend.name}: {error}" if why else f"{backend.name}: {error}"
            backend.close()
            backend = self._start(self._left.pop(0))
        self._settled = True
        if why:
            log.warning("this kernel can not do the proxy mode", extra={"wanted": self._wanted, "used": backend.name, "why": why})
            if self._passed is not None:
                self._passed(self._wanted, backend.name, why)
        await self._remove_others()

    async def apply(self, old: Targets, new: Targets) -> None:
        await self._started().apply(old, new)

    def close(self) -> None:
        if self._backend is not None:
            self._backend.close()

    def _started(self) -> Backend:
        if self._backend is None:
            raise BackendError("no rules were written yet")
        return self._backend

    def _start(self, mode: str) -> Backend:
        backend = self._backend = self._make(mode, self._node)
        self.name = backend.name
        self._watch(backend)
        return backend

    def _forget_others(self) -> None:
        """Until all is done, whatever there may be counts as left here."""
        if self._file is not None and not self._remembered(self._wanted):
            self._file.unlink(missing_ok=True)

    def _remembered(self, mode: str) -> bool:
        if self._file is None:
            return False
        try:
            return self._file.read_text() == mode
        except OSError:
            return False

    async def _remove_others(self) -> None:
        if self._remembered(self.name):
            return
        for used in await remove_leftovers(self._node, keep=self.name):
            log.info("rules of another proxy mode removed", extra={"mode": used, "now": self.name})
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.write_text(self.name)


async def _works(backend: Backend) -> bool:
    """Whether the kernel can do it at all."""
    try:
        await backend.replace({})
    except BackendError:
        return False
    return True


async def remove_leftovers(node: Node, *, keep: str = "") -> list[str]:
    """Take away what backends other than `keep` made here; "": all of them (uninstall). Names what was found, as far as that is known."""
    from edgekube.proxy import iptables, ipvs, localroutes, nftables

    found = []
    with contextlib.suppress(ProgramMissing):
        if keep not in ("nftables", "ipvs", "userspace"):  # the others use its table as well
            await nftables.remove_tables(node.instance)
    if keep not in ("iptables", "userspace") and await iptables.remove_chains(node.instance):
        found.append("iptables")
    if keep != "ipvs" and await ipvs.remove_ipvs(node):
        found.append("ipvs")
    if keep not in ("ipvs", "userspace"):
        await localroutes.remove_local_routes()
    return found
