"""Names for the shapes that travel everywhere."""

from typing import Any, NamedTuple

Obj = dict[str, Any]
"""One API object, as JSON has it. Unknown fields survive."""


class Key(NamedTuple):
    """Which object: namespace is "" for cluster-scoped kinds."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name
