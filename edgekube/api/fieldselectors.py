"""Field selectors: terms `field=value` and `field!=value` over the few fields a kind declares selectable."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from edgekube.errors import BadRequest


class FieldRequirement(NamedTuple):
    field: str
    equal: bool
    value: str


class FieldSelector:
    """Terms over an object's selectable fields."""

    __slots__ = ("requirements",)

    def __init__(self, requirements: Sequence[FieldRequirement]) -> None:
        self.requirements = tuple(requirements)

    @property
    def empty(self) -> bool:
        return not self.requirements

    def matches(self, fields: Mapping[str, str]) -> bool:
        return all((fields.get(field, "") == value) is equal for field, equal, value in self.requirements)

    def exact(self, field: str) -> str | None:
        """The one value that `field` must have, if the selector says so."""
        return next((r.value for r in self.requirements if r.field == field and r.equal), None)

    def __str__(self) -> str:
        return ",".join(f"{r.field}{'=' if r.equal else '!='}{_escape(r.value)}" for r in self.requirements)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FieldSelector) and self.requirements == other.requirements

    def __hash__(self) -> int:
        return hash(self.requirements)


ALL_FIELDS = FieldSelector(())
_ALWAYS = ("metadata.name", "metadata.namespace")


def parse_fields(text: str, known: Iterable[str] | None = None) -> FieldSelector:
    """The selector that `fieldSelector=` spells. With `known`, any other field is refused. Raises BadRequest."""
    if not text:
        return ALL_FIELDS
    found: list[FieldRequirement] = []
    allowed = None if known is None else {*known, *_ALWAYS}
    for term in _split_terms(text):
        if not term:
            continue
        split = _split_term(term)
        if split is None:
            raise BadRequest(f"invalid selector: '{text}'; can't understand '{term}'")
        field, operator, raw = split
        value = _unescape(raw)
        if allowed is not None and field not in allowed:
            raise BadRequest(_unsupported(field, allowed))
        found.append(FieldRequirement(field, operator != "!=", value))
    return FieldSelector(found)


def _unsupported(field: str, allowed: set[str]) -> str:
    """Kinds with selectable fields of their own word the refusal differently from those without."""
    if len(allowed) > len(_ALWAYS):
        return f"field label not supported: {field}"
    return f'"{field}" is not a known field selector: only "metadata.name", "metadata.namespace"'


def _split_terms(text: str) -> Iterator[str]:
    """The terms between commas; a backslash keeps the next character from meaning anything."""
    start = at = 0
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == ",":
            yield text[start:at]
            start = at + 1
        at += 1
    yield text[start:]


def _split_term(term: str) -> tuple[str, str, str] | None:
    at = 0
    while at < len(term):
        for operator in ("!=", "==", "="):
            if term.startswith(operator, at):
                return term[:at], operator, term[at + len(operator) :]
        at += 2 if term[at] == "\\" else 1
    return None


def _unescape(raw: str) -> str:
    if "\\" not in raw and "," not in raw and "=" not in raw:
        return raw
    value, at = [], 0
    while at < len(raw):
        char = raw[at]
        if char == "\\":
            at += 1
            char = raw[at : at + 1]
            if char not in ("\\", ",", "="):
                raise BadRequest(f"invalid field selector: invalid escape sequence: \\{char}")
        elif char in (",", "="):
            raise BadRequest(f"invalid field selector: unescaped rune in value: {char}")
        value.append(char)
        at += 1
    return "".join(value)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
