"""What admission plugins share: the base with hooks that do nothing, and refusals worded as upstream's admission does."""

from collections.abc import Sequence

from edgekube.apiserver.admission.protocol import Admission
from edgekube.errors import Forbidden


class BasePlugin:
    """A plugin that does nothing: subclasses override one hook or both."""

    name = ""
    kinds: Sequence[str] = ()

    async def mutate(self, request: Admission) -> None:
        """Nothing to change."""

    async def validate(self, request: Admission) -> None:
        """Nothing to refuse."""


def object_name(request: Admission) -> str:
    """The name to show: a generated one does not exist yet, so its prefix stands for it."""
    if request.name:
        return request.name
    metadata = (request.obj or {}).get("metadata") or {}
    return str(metadata.get("name") or metadata.get("generateName") or "Unknown")


def forbidden(request: Admission, why: str) -> Forbidden:
    """`pods "web" is forbidden: why`."""
    return Forbidden.of(request.kind.group, request.kind.plural, object_name(request), why)


def is_write_of(request: Admission, plural: str, group: str = "") -> bool:
    """Whether the request writes the resource itself (no subresource)."""
    return request.kind.plural == plural and request.kind.group == group and not request.subresource
