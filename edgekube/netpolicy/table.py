"""The policy table in the kernel: brought to what is wanted by the smallest change, written again when somebody else touches it.

While nothing is wanted there is no table, no watch on nftables, and the library is not loaded.
"""

import contextlib
import logging
from collections.abc import Callable

from edgekube.lib.nft import Nft, NftError, TableWatch
from edgekube.lib.process import ProgramMissing, ProgramTimeout
from edgekube.netpolicy.ruleset import FAMILY, NOTHING, Frame, Tables, difference, whole

log = logging.getLogger(__name__)

REFUSED = (NftError, ProgramMissing, ProgramTimeout, OSError)
_BIG = 100_000  # characters from which on a change goes through the program: the library would keep the memory


def policy_table(instance: str) -> str:
    return f"edgekube_{instance}_policy"


class PolicyTable:
    """One table. `wake` is called when it has to be brought again."""

    def __init__(self, frame: Frame, wake: Callable[[], None]) -> None:
        self._frame, self._name, self._wake = frame, frame.table, wake
        self._nft = Nft()
        self._watch: TableWatch | None = None
        self._state: Tables = NOTHING
        self.stale = True  # the kernel may have something else than the state says

    async def bring(self, wanted: Tables) -> None:
        """Raises one of REFUSED; the next call writes the whole table then."""
        was_stale, self.stale = self.stale, False  # before: a flush meanwhile sets it again
        try:
            if wanted.empty:
                if was_stale or not self._state.empty:
                    await self._remove(known=not was_stale)
            elif was_stale:
                await self._write_whole(wanted)
            elif self._state.empty:  # we know that there is no table
                await self._apply(whole(self._frame, wanted))
            elif commands := difference(self._name, self._state, wanted):
                await self._apply(commands)
        except BaseException:
            self.stale = True
            raise
        self._state = wanted

    def close(self) -> None:
        """The table stays."""
        self._unwatch()
        self._nft.close()

    async def _apply(self, commands: str) -> None:
        with self._watching().own_change():
            await (self._nft.apply_whole if len(commands) > _BIG else self._nft.apply)(commands)

    async def _write_whole(self, wanted: Tables) -> None:
        with self._watching().own_change():
            chains, sets = await self._nft.names(self._name, family=FAMILY)
            try:
                await self._nft.apply_whole(whole(self._frame, wanted, chains=chains, sets=sets))
            except NftError:  # an older version's table may have another shape
                await self._nft.apply_whole(self._removal() + whole(self._frame, wanted))

    async def _remove(self, *, known: bool) -> None:
        self._unwatch()
        if known:
            await self._nft.apply(self._removal())
        else:
            with contextlib.suppress(ProgramMissing):  # who has no nft has no table
                await self._nft.delete_table(self._name, family=FAMILY)

    def _removal(self) -> str:
        return f"add table {FAMILY} {self._name}\ndelete table {FAMILY} {self._name}\n"

    def _watching(self) -> TableWatch:
        if self._watch is None:
            self._watch = TableWatch(self._name, self._touched)
            self._watch.start()
        return self._watch

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _touched(self) -> None:
        log.warning("somebody changed our nftables table; writing it again", extra={"table": self._name})
        self.stale = True
        self._wake()


async def remove_policies(instance: str) -> None:
    """For uninstall: our table, whole."""
    nft = Nft()
    try:
        await nft.delete_table(policy_table(instance), family=FAMILY)
    finally:
        nft.close()
