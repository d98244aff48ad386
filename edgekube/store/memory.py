"""A store with no disk: the twin of sqlite.py that tests and tools use, held to the same contract suite.

A durable write is committed at the loop's next turn, so that callers see the same order of things as with a disk: in flight first,
published later, ephemeral writes behind durable ones.
"""

import asyncio

from edgekube.store.core import CoreStore, Write, tag_nothing
from edgekube.store.protocol import Tagger
from edgekube.store.state import State


class MemoryStore(CoreStore):
    """A Store that forgets everything with the process. The tagger is accepted for symmetry: nothing is ever loaded."""

    def __init__(self, tagger: Tagger | None = None, *, history: int = 1000) -> None:
        super().__init__(State(history=history, revision=1, floor=1))
        self._tagger = tagger or tag_nothing

    def _before(self, write: Write) -> None:
        """No disk to prepare."""

    def _safe(self, write: Write) -> bool:
        """No crash to outlive."""
        return True

    def _kick(self) -> None:
        if not self._busy:
            self._busy = True
            asyncio.get_running_loop().call_soon(self._commit)

    def _commit(self) -> None:
        while self._queue:
            self._finish(self._take())
        self._busy = False

    async def close(self) -> None:
        self._closing = True
        self._commit()
