"""What an admission plugin is. Mutating hooks run in order before validation, validating hooks after it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edgekube.api.kind import Kind
from edgekube.api.types import Obj
from edgekube.apiserver.identity import User


@dataclass(slots=True)
class Admission:
    """One write under examination. `obj` is None for deletes, `old` for creates; `operation`: CREATE, UPDATE, DELETE, CONNECT."""

    operation: str
    kind: Kind
    namespace: str
    name: str
    subresource: str
    user: User
    obj: Obj | None
    old: Obj | None
    dry_run: bool = False
    warnings: list[str] = field(default_factory=list)
    done: list[Callable[[], None]] = field(default_factory=list)  # the operation's: called once the write is committed or given up

    def finish(self) -> None:
        """Let go of what was reserved for this write: it failed, or it is tried again."""
        while self.done:
            self.done.pop()()


class Plugin(Protocol):
    """`kinds` are the plurals it looks at (empty: all). Either hook may raise ApiError (mostly Forbidden)."""

    @property
    def name(self) -> str: ...

    @property
    def kinds(self) -> Sequence[str]: ...

    async def mutate(self, request: Admission) -> None:
        """May change `request.obj` in place."""

    async def validate(self, request: Admission) -> None:
        """May only refuse."""
