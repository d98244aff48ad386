"""Label selectors: the text clients send, the LabelSelector objects hold, and matching. (Field selectors: fieldselectors.py.)

A selector is parsed once and matched often: each requirement is one small tuple, and equalities are compared first. The grammar is in
labelsyntax.py.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from edgekube.api.fieldselectors import ALL_FIELDS, FieldRequirement, FieldSelector, parse_fields
from edgekube.api.labelsyntax import Parser, Requirement, label_key_faults, label_value_faults, require
from edgekube.errors import BadRequest

__all__ = (
    "ALL_FIELDS", "EVERYTHING", "NOTHING", "FieldRequirement", "FieldSelector", "Requirement", "Selector", "from_label_selector",
    "from_map", "label_key_faults", "label_value_faults", "parse_fields", "parse_labels",
)  # fmt: skip


class Selector:
    """All requirements must hold. `empty` matches everything; `nothing` matches nothing (a null LabelSelector)."""

    __slots__ = ("_exact", "_rest", "nothing", "requirements")

    def __init__(self, requirements: Iterable[Requirement], *, nothing: bool = False) -> None:
        self.requirements = tuple(sorted(requirements, key=lambda requirement: requirement.key))
        self.nothing = nothing
        exact = [r for r in self.requirements if r.operator in ("=", "==", "in") and len(r.values) == 1]
        self._exact = tuple((r.key, next(iter(r.values))) for r in exact)
        self._rest = tuple(r for r in self.requirements if r not in exact)

    @property
    def empty(self) -> bool:
        return not self.requirements and not self.nothing

    def matches(self, labels: Mapping[str, str]) -> bool:
        if self.nothing:
            return False
        for key, value in self._exact:
            if labels.get(key) != value:
                return False
        return all(requirement.matches(labels) for requirement in self._rest)

    def exact(self, key: str) -> str | None:
        """The one value that `key` must have, if the selector says so."""
        return next((value for name, value in self._exact if name == key), None)

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Selector) and (self.requirements, self.nothing) == (other.requirements, other.nothing)

    def __hash__(self) -> int:
        return hash((self.requirements, self.nothing))


EVERYTHING = Selector(())
NOTHING = Selector((), nothing=True)


def parse_labels(text: str) -> Selector:
    """The selector that `labelSelector=` or kubectl's -l spells. Raises BadRequest."""
    if not text.strip():
        return EVERYTHING
    try:
        return Selector(Parser(text).parse())
    except ValueError as error:
        raise BadRequest(str(error)) from error


def from_map(labels: Mapping[str, str] | None) -> Selector:
    """Every label must have exactly that value; no labels select everything."""
    return Selector(Requirement(key, "=", frozenset((value,))) for key, value in (labels or {}).items())


def from_label_selector(selector: Mapping[str, Any] | None) -> Selector:
    """The selector of a metav1.LabelSelector: None selects nothing, an empty one everything. Raises ValueError if it makes no sense."""
    if selector is None:
        return NOTHING
    found = [Requirement(key, "=", frozenset((value,))) for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or ():
        operator = _EXPRESSIONS.get(expression.get("operator", ""))
        if operator is None:
            raise ValueError(f'"{expression.get("operator", "")}" is not a valid label selector operator')
        found.append(require(expression.get("key", ""), operator, expression.get("values") or ()))
    return Selector(found)


_EXPRESSIONS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}
