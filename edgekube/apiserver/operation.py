"""What one call asks of one resource, after its path and options are read: what verbs, subresources and the in-process client share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgekube.api.kind import Kind
from edgekube.apiserver.identity import User

IGNORE, WARN, STRICT = "Ignore", "Warn", "Strict"


@dataclass(slots=True)
class Operation:
    """`name` is "" where a collection is addressed. `subresource` is "" for the object itself."""

    kind: Kind
    user: User
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    dry_run: bool = False
    field_manager: str = ""
    field_validation: str = IGNORE  # what to do about fields nobody knows: Ignore, Warn, Strict
    force: bool = False  # server-side apply: take over other managers' fields
    applying: bool = False  # this write is a server-side apply, which keeps managedFields itself
    rest: str = ""  # what follows a proxy subresource
    doubles: Sequence[str] = ()  # fields that the body of a patch gives twice
    warnings: list[str] = field(default_factory=list)
    done: list[Callable[[], None]] = field(default_factory=list)  # what admission reserved: the verb calls `finish` when it is decided

    def finish(self) -> None:
        """Let go of reservations: a committed write is known by now, one that was given up needs none."""
        while self.done:
            self.done.pop()()

    @property
    def resource(self) -> str:
        """`deployments.apps`, as messages write it."""
        return f"{self.kind.plural}.{self.kind.group}" if self.kind.group else self.kind.plural
