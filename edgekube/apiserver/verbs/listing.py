"""list: a consistent page of objects, and what resourceVersion, limit and continue mean together.

resourceVersion  match         limit   answer
"", none         -             any     now; with a limit the continue token pins the revision
"0", N           NotOlderThan  any     now, provided N has happened
N                none          0       the same
N                none          > 0     exactly at N
N                Exact         any     exactly at N
"""

import asyncio
import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from edgekube.api.item import Item
from edgekube.api.selectors import FieldSelector, Selector, parse_fields, parse_labels
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.registry import mapped, too_new
from edgekube.errors import BadRequest, Expired, Invalid, Problem
from edgekube.store.protocol import Compacted, StoreError

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server

BREATH = 2000  # objects matched between two yields to the loop
EXACT, NOT_OLDER = "Exact", "NotOlderThan"
_INCONSISTENT = -1
_CONTINUE_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between "
    "the time the first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True, slots=True)
class ListOptions:
    """metav1.ListOptions, read. `revision` is None where the client gave none."""

    labels: Selector
    fields: FieldSelector
    limit: int = 0
    token: str = ""
    revision: int | None = None
    match: str = ""

    @property
    def selective(self) -> bool:
        return not (self.labels.empty and self.fields.empty)


@dataclass(frozen=True, slots=True)
class Listing:
    items: Sequence[Item]
    revision: int
    token: str = ""
    remaining: int | None = None

    def metadata(self) -> dict[str, Any]:
        """ListMeta."""
        found: dict[str, Any] = {"resourceVersion": str(self.revision)}
        if self.token:
            found["continue"] = self.token
        if self.remaining:
            found["remainingItemCount"] = self.remaining
        return found


class TokenExpired(Expired):
    """A continue token whose revision is gone; carries one that goes on from the same key at the present."""

    def __init__(self, token: str) -> None:
        super().__init__(_CONTINUE_OLD)
        self._token = token

    def to_status(self) -> dict[str, Any]:
        return super().to_status() | {"metadata": {"continue": self._token}}


def parse_options(
    op: Operation,
    *,
    labels: str = "",
    fields: str = "",
    limit: str = "",
    token: str = "",
    revision: str = "",
    match: str = "",
    initial: bool = False,
) -> ListOptions:
    """Read and check. Raises BadRequest, Invalid."""
    problems: list[Problem] = []
    if match:
        _check_match(problems, revision, match, token)
    if initial:
        problems.append(Problem("sendInitialEvents", "FieldValueForbidden", "Forbidden: sendInitialEvents is forbidden for list"))
    if problems:
        raise Invalid.of("meta.k8s.io", "ListOptions", "", problems)
    try:
        number = int(limit or 0)
    except ValueError:
        raise BadRequest(f'strconv.ParseInt: parsing "{limit}": invalid syntax') from None
    if token and revision not in ("", "0"):
        raise BadRequest("specifying resource version is not allowed when using continue")
    return ListOptions(
        labels=parse_labels(labels),
        fields=parse_fields(fields, op.kind.selectable),
        limit=max(number, 0),
        token=token,
        revision=parse_revision(revision),
        match=match,
    )


def _check_match(problems: list[Problem], revision: str, match: str, token: str) -> None:
    def forbid(why: str) -> None:
        problems.append(Problem("resourceVersionMatch", "FieldValueForbidden", f"Forbidden: {why}"))

    if token:
        forbid("resourceVersionMatch is forbidden for continue")
    if not revision:
        forbid("resourceVersionMatch is forbidden unless resourceVersion is provided")
    if match not in (EXACT, NOT_OLDER):
        text = f'Unsupported value: "{match}": supported values: "{EXACT}", "{NOT_OLDER}", ""'
        problems.append(Problem("resourceVersionMatch", "FieldValueNotSupported", text))
    elif match == EXACT and revision == "0":
        forbid('resourceVersionMatch "exact" is forbidden for resourceVersion "0"')


def parse_revision(text: str) -> int | None:
    """A client's resourceVersion. Raises Invalid."""
    if not text:
        return None
    if not text.isdigit():
        message = f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        raise Invalid.of("", "", "", [Problem("resourceVersion", "FieldValueInvalid", message)])
    return int(text)


async def list_items(server: "Server", op: Operation, options: ListOptions) -> Listing:
    """One page. Raises BadRequest, Expired, Timeout (a revision that has not happened)."""
    registry, kind = server.registry, op.kind
    prefix = registry.prefix(kind, op.namespace)
    after, revision = "", 0
    if options.token:
        after, revision = _decode_token(options.token, prefix)
    elif options.revision:
        if options.match == EXACT or (not options.match and options.limit):
            revision = options.revision
        if options.revision > server.store.revision:
            raise too_new(options.revision, server.store.revision)
    shown = revision or server.store.revision
    try:
        return await _collect(server, op, options, after, revision, shown)
    except Compacted as error:
        if options.token:
            raise TokenExpired(_encode_token(_INCONSISTENT, after.removeprefix(prefix))) from error
        raise Expired(f"The resourceVersion for the provided list is too old: {revision}") from error
    except StoreError as error:
        raise mapped(error, kind, "") from error


async def _collect(server: "Server", op: Operation, options: ListOptions, after: str, revision: int, shown: int) -> Listing:
    registry, kind, limit = server.registry, op.kind, options.limit
    name = options.fields.exact("metadata.name")
    if name is not None and op.namespace and not revision:
        found = registry.find(kind, op.namespace, name)
        return Listing([found] if found is not None and _matches(options, found) else [], shown)
    if not options.selective:
        page = registry.page(kind, op.namespace, after=after, limit=limit, revision=revision)
        token = _encode_token(shown, page.last.removeprefix(registry.prefix(kind, op.namespace))) if page.more else ""
        return Listing(page.items, shown, token, page.more or None)
    found_items: list[Item] = []
    while True:
        page = registry.page(kind, op.namespace, after=after, limit=max(limit, BREATH) if limit else 0, revision=revision)
        for index, item in enumerate(page.items, start=1):
            if index % BREATH == 0:
                await asyncio.sleep(0)
            if not _matches(options, item):
                continue
            found_items.append(item)
            if limit and len(found_items) == limit:
                if index == len(page.items) and not page.more:
                    return Listing(found_items, shown)
                last = registry.key(kind, item.namespace, item.name)
                return Listing(found_items, shown, _encode_token(shown, last.removeprefix(registry.prefix(kind, op.namespace))))
        if not page.more:
            return Listing(found_items, shown)
        after, revision = page.last, shown


def _matches(options: ListOptions, item: Item) -> bool:
    return options.labels.matches(item.labels) and options.fields.matches(item.fields)


def _encode_token(revision: int, start: str) -> str:
    raw = orjson.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": start})
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode_token(token: str, prefix: str) -> tuple[str, int]:
    """The key to go on after and the revision (0: now)."""
    try:
        data = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        version, revision, start = data["v"], data["rv"], data["start"]
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise BadRequest(f"continue key is not valid: {error}") from error
    if version != "meta.k8s.io/v1" or not isinstance(revision, int) or not isinstance(start, str) or revision == 0:
        raise BadRequest("continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
    return prefix + start, max(revision, 0)
