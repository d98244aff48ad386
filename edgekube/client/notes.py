"""Small things a component of a node remembers across restarts, beside the objects: tokens, for one.

`client.shadowstore.ShadowStore` keeps them encrypted on disk; `NoNotes` is for a node that has its server in the same process.
Notes named `pod/<uid>/...` end with the pod.
"""

from typing import Protocol


class Notes(Protocol):
    def note(self, name: str, /) -> bytes | None:
        """What was noted under `name`."""

    def set_note(self, name: str, value: bytes | None, /) -> None:
        """Note it; None takes it away. Does not wait for the disk."""


class NoNotes:
    """Forgets at once: who keeps notes has them in memory anyway."""

    def note(self, _name: str, /) -> bytes | None:
        return None

    def set_note(self, _name: str, _value: bytes | None, /) -> None:
        return
