"""The syntax of label selectors, keys and values, and what clients are told of faults in them.

Messages are those of k8s.io/apimachinery/pkg/labels and pkg/util/validation; they are raised as ValueError.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Requirement(NamedTuple):
    """`operator` is one of = == != in notin exists ! gt lt; `values` is empty for exists and !."""

    key: str
    operator: str
    values: frozenset[str]

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        if self.operator in ("=", "==", "in"):
            return value in self.values
        if self.operator in ("!=", "notin"):
            return value is None or value not in self.values
        if self.operator == "exists":
            return value is not None
        if self.operator == "!":
            return value is None
        return value is not None and self._compare(value)

    def _compare(self, value: str) -> bool:
        try:
            left, right = int(value), int(next(iter(self.values)))
        except ValueError:
            return False
        return left > right if self.operator == "gt" else left < right

    def __str__(self) -> str:
        if self.operator == "exists":
            return self.key
        if self.operator == "!":
            return f"!{self.key}"
        joined = ",".join(sorted(self.values))
        if self.operator in ("in", "notin"):
            return f"{self.key} {self.operator} ({joined})"
        sign = {"gt": ">", "lt": "<"}.get(self.operator, self.operator)
        return f"{self.key}{sign}{joined}"


_WORD, _END = "word", "end"
_SCAN = re.compile(r"[ \t\r\n]*(?:([=!(),<>]+)|([^=!(),<> \t\r\n]+))")
_SPECIALS = frozenset((")", ",", "!", "==", "=", ">", "<", "!=", "("))
_BINARY = ("in", "notin", "=", "==", "!=", ">", "<")
_BINARY_TEXT = "in, notin, =, ==, !=, gt, lt"


def _tokens(text: str) -> list[tuple[str, str]]:
    """(kind, literal): the kind of an operator is its own text."""
    found: list[tuple[str, str]] = []
    at = 0
    while match := _SCAN.match(text, at):
        special, word = match.groups()
        if word:
            found.append((word if word in ("in", "notin") else _WORD, word))
            at = match.end()
            continue
        size = next((n for n in (2, 1) if special[:n] in _SPECIALS and len(special) >= n), 0)
        found.append((special[:size], special[:size]))
        at = match.start(1) + size
    found.append((_END, ""))
    return found


class Parser:
    """Recursive descent over the tokens. Raises ValueError in upstream's words."""

    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.at = 0

    def peek(self) -> tuple[str, str]:
        """The next token where a value may stand: there `in` and `notin` are words."""
        kind, literal = self.tokens[min(self.at, len(self.tokens) - 1)]
        return (_WORD if kind in ("in", "notin") else kind), literal

    def take(self) -> tuple[str, str]:
        token = self.peek()
        self.at += 1
        return token

    def parse(self) -> list[Requirement]:
        found: list[Requirement] = []
        while True:
            kind, literal = self.peek()
            if kind == _END:
                return found
            if kind not in (_WORD, "!"):
                raise ValueError(f"found '{literal}', expected: !, identifier, or 'end of string'")
            try:
                found.append(self.requirement())
            except ValueError as error:
                raise ValueError(f"unable to parse requirement: {error}") from error
            kind, literal = self.take()
            if kind == _END:
                return found
            if kind != ",":
                raise ValueError(f"found '{literal}', expected: ',' or 'end of string'")
            kind, literal = self.peek()
            if kind not in (_WORD, "!"):
                raise ValueError(f"found '{literal}', expected: identifier after ','")

    def requirement(self) -> Requirement:
        kind, literal = self.take()
        absent = kind == "!"
        if absent:
            kind, literal = self.take()
        if kind != _WORD:
            raise ValueError(f"found '{literal}', expected: identifier")
        if faults := label_key_faults(literal):
            raise ValueError(f"<nil>: Invalid value: {_quote(literal)}: {'; '.join(faults)}")
        if absent:
            return require(literal, "!", ())
        if self.peek()[0] in (_END, ","):
            return require(literal, "exists", ())
        operator, text = self.tokens[self.at]
        self.at += 1
        if operator not in _BINARY:
            raise ValueError(f"found '{text}', expected: {_BINARY_TEXT}")
        values = self.set() if operator in ("in", "notin") else (self.exact(),)
        return require(literal, {">": "gt", "<": "lt"}.get(operator, operator), values)

    def exact(self) -> str:
        if self.peek()[0] in (_END, ","):
            return ""
        kind, literal = self.take()
        if kind != _WORD:
            raise ValueError(f"found '{literal}', expected: identifier")
        return literal

    def set(self) -> Sequence[str]:
        kind, literal = self.take()
        if kind != "(":
            raise ValueError(f"found '{literal}' expected: '('")
        kind, literal = self.peek()
        if kind == ")":
            self.take()
            return ("",)
        if kind not in (_WORD, ","):
            raise ValueError(f"found '{literal}', expected: ',', ')' or identifier")
        values: list[str] = []
        while True:
            kind, literal = self.take()
            following, text = self.peek()
            if kind == _WORD:
                values.append(literal)
                if following not in (",", ")"):
                    raise ValueError(f"found '{text}', expected: ',' or ')'")
            elif kind == ",":
                if not values or following in (",", ")"):
                    values.append("")
            else:
                raise ValueError(f"found '{literal}', expected: ',', or identifier")
            if following == ")":
                self.take()
                return values


def require(key: str, operator: str, values: Iterable[str]) -> Requirement:
    """A requirement whose values were checked. Raises ValueError with all faults."""
    ordered = sorted(set(values))
    faults: list[str] = []
    if operator in ("in", "notin") and not ordered:
        faults.append("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty")
    for index, value in enumerate(ordered):
        if operator in ("gt", "lt") and not re.fullmatch(r"[+-]?\d+", value):
            why = "for 'Gt', 'Lt' operators, the value must be an integer"
            faults.append(f"values[{index}]: Invalid value: {_quote(value)}: {why}")
        if found := label_value_faults(value):
            faults.append(f"values[{index}][{key}]: Invalid value: {_quote(value)}: {'; '.join(found)}")
    if faults:
        raise ValueError(faults[0] if len(faults) == 1 else "[" + ", ".join(faults) + "]")
    return Requirement(key, operator, frozenset(ordered))


_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME_RULE = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_DOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def label_key_faults(key: str) -> list[str]:
    """What is wrong with a label's key, in upstream's words."""
    prefix, slash, name = key.rpartition("/")
    if "/" in prefix:
        form = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return [f"a valid label key {_NAME_RULE} {form}"]
    found: list[str] = []
    if slash and not prefix:
        found.append("prefix part must be non-empty")
    elif slash:
        if len(prefix) > 253:
            found.append("prefix part must be no more than 253 bytes")
        if not _DOMAIN.fullmatch(prefix):
            found.append(f"prefix part {_DOMAIN_RULE}")
    if not name:
        found.append("name part must be non-empty")
    elif len(name) > 63:
        found.append("name part must be no more than 63 bytes")
    if not _NAME.fullmatch(name):
        found.append(f"name part {_NAME_RULE}")
    return found


def label_value_faults(value: str) -> list[str]:
    """What is wrong with a label's value, in upstream's words."""
    found = ["must be no more than 63 bytes"] if len(value) > 63 else []
    if value and not _NAME.fullmatch(value):
        found.append(_VALUE_RULE)
    return found


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
