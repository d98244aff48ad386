"""The small rules that validation is made of: names, ports, keys. Pure; each returns upstream's messages, empty if all is well.

Source of the rules: k8s.io/apimachinery/pkg/util/validation (validation.go) and pkg/api/validate/content. Answers for names are
remembered: pods repeat the same few.
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgekube.api import problems
from edgekube.errors import Problem

_LABEL_PATTERN = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN_PATTERN = _LABEL_PATTERN + r"(\." + _LABEL_PATTERN + ")*"
_LABEL_1035_PATTERN = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED_PATTERN = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE_PATTERN = f"({_QUALIFIED_PATTERN})?"
_UNDERSCORE_PATTERN = r"[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*"
_KEY_PATTERN = r"[-._a-zA-Z0-9]+"

_LABEL = re.compile(_LABEL_PATTERN).fullmatch
_SUBDOMAIN = re.compile(_SUBDOMAIN_PATTERN).fullmatch
_LABEL_1035 = re.compile(_LABEL_1035_PATTERN).fullmatch
_QUALIFIED = re.compile(_QUALIFIED_PATTERN).fullmatch
_UNDERSCORE = re.compile(_UNDERSCORE_PATTERN).fullmatch
_KEY = re.compile(_KEY_PATTERN).fullmatch
_PORT_NAME_CHARS = re.compile(r"[-a-z0-9]+").fullmatch
_HAS_LETTER = re.compile("[a-z]").search
_PROCESS = re.compile(r"[A-Za-z_][-A-Za-z0-9_.]*").fullmatch

IMMUTABLE = "field is immutable"
NOT_NEGATIVE = "must be greater than or equal to 0"
POSITIVE = "must be greater than 0"


def _rule(what: str, pattern: str, *examples: str) -> str:
    """validation.RegexError."""
    shown = " or ".join(f"'{example}', " for example in examples)
    lead = f"e.g. {shown}" if examples else ""
    return f"{what} ({lead}regex used for validation is '{pattern}')"


_LABEL_TEXT = _rule(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric "
    "character", _LABEL_PATTERN, "my-name", "123-abc",
)  # fmt: skip
_SUBDOMAIN_TEXT = _rule(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an "
    "alphanumeric character", _SUBDOMAIN_PATTERN, "example.com",
)  # fmt: skip
_UNDERSCORE_TEXT = _rule(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an "
    "alphanumeric character", _UNDERSCORE_PATTERN, "example.com",
)  # fmt: skip
_LABEL_1035_TEXT = _rule(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an "
    "alphanumeric character", _LABEL_1035_PATTERN, "my-name", "abc-123",
)  # fmt: skip
_WILDCARD_PATTERN = r"\*\." + _SUBDOMAIN_PATTERN
_QUALIFIED_RULE = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
_QUALIFIED_TEXT = _rule(_QUALIFIED_RULE, _QUALIFIED_PATTERN, "MyName", "my.name", "123-abc")
_VALUE_TEXT = _rule(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character", _VALUE_PATTERN, "MyValue", "my_value", "12345",
)  # fmt: skip
_KEY_TEXT = _rule(
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'", _KEY_PATTERN, "key.name", "KEY_NAME", "key-name"
)


def too_long(limit: int) -> str:
    """validation.MaxLenError, of names."""
    return f"must be no more than {limit} characters"


def too_many_bytes(limit: int) -> str:
    """content.MaxLenError, of label keys and label values: upstream has two wordings."""
    return f"must be no more than {limit} bytes"


def between(low: int, high: int) -> str:
    """validation.InclusiveRangeError."""
    return f"must be between {low} and {high}, inclusive"


@functools.lru_cache(maxsize=4096)
def subdomain(name: str) -> Sequence[str]:
    """IsDNS1123Subdomain."""
    if len(name) <= 253 and _SUBDOMAIN(name):
        return ()
    found = [too_long(253)] if len(name) > 253 else []
    return found if _SUBDOMAIN(name) else [*found, _SUBDOMAIN_TEXT]


@functools.lru_cache(maxsize=1024)
def subdomain_with_underscore(name: str) -> Sequence[str]:
    """IsDNS1123SubdomainWithUnderscore."""
    found = [too_long(253)] if len(name) > 253 else []
    return found if _UNDERSCORE(name) else [*found, _UNDERSCORE_TEXT]


@functools.lru_cache(maxsize=4096)
def label(name: str) -> Sequence[str]:
    """IsDNS1123Label."""
    if len(name) <= 63 and _LABEL(name):
        return ()
    found = [too_long(63)] if len(name) > 63 else []
    if _LABEL(name):
        return found
    return [*found, "must not contain dots" if _SUBDOMAIN(name) else _LABEL_TEXT]


@functools.lru_cache(maxsize=1024)
def label_1035(name: str) -> Sequence[str]:
    """IsDNS1035Label."""
    found = [too_long(63)] if len(name) > 63 else []
    return found if _LABEL_1035(name) else [*found, _LABEL_1035_TEXT]


def path_segment(name: str) -> Sequence[str]:
    """path.ValidatePathSegmentName: what may stand in a URL."""
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{each}'" for each in "/%" if each in name]


@functools.lru_cache(maxsize=4096)
def qualified(name: str) -> Sequence[str]:
    """IsQualifiedName: label keys, annotation keys, finalizers, resource names."""
    parts = name.split("/")
    if len(parts) > 2:
        return [f"a valid label key {_QUALIFIED_TEXT} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    found: list[str] = []
    if len(parts) == 2:
        found = _prefix(parts[0])
    last = parts[-1]
    if not last:
        found.append("name part must be non-empty")
    elif len(last) > 63:
        found.append(f"name part {too_many_bytes(63)}")
    if not _QUALIFIED(last):
        found.append(f"name part {_QUALIFIED_TEXT}")
    return found


def _prefix(text: str) -> list[str]:
    if not text:
        return ["prefix part must be non-empty"]
    found = [f"prefix part {too_many_bytes(253)}"] if len(text) > 253 else []
    return found if _SUBDOMAIN(text) else [*found, f"prefix part {_SUBDOMAIN_TEXT}"]


@functools.lru_cache(maxsize=4096)
def label_value(value: str) -> Sequence[str]:
    """IsValidLabelValue."""
    found = [too_many_bytes(63)] if len(value) > 63 else []
    return [*found, _VALUE_TEXT] if value and not _QUALIFIED(value) else found


@functools.lru_cache(maxsize=1024)
def config_key(key: str) -> Sequence[str]:
    """IsConfigMapKey."""
    found = [too_long(253)] if len(key) > 253 else []
    if not _KEY(key):
        found.append(_KEY_TEXT)
    if key == ".":
        found.append("must not be '.'")
    elif key == "..":
        found.append("must not be '..'")
    elif key.startswith(".."):
        found.append("must not start with '..'")
    return found


@functools.lru_cache(maxsize=1024)
def env_name(name: str) -> Sequence[str]:
    """IsRelaxedEnvVarName: printable ASCII without `=`."""
    if not name:
        return ["environment variable name must be non-empty"]
    if all(" " <= char <= "~" and char != "=" for char in name):
        return ()
    return ["a valid environment variable name must consist only of printable ASCII characters other than '='"]


@functools.lru_cache(maxsize=1024)
def port_name(name: str) -> Sequence[str]:
    """IsValidPortName."""
    found = [too_long(15)] if len(name) > 15 else []
    if not _PORT_NAME_CHARS(name):
        found.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not _HAS_LETTER(name):
        found.append("must contain at least one letter (a-z)")
    if "--" in name:
        found.append("must not contain consecutive hyphens")
    if name and (name[0] == "-" or name[-1] == "-"):
        found.append("must not begin or end with a hyphen")
    return found


def port_number(number: int) -> Sequence[str]:
    """IsValidPortNum."""
    return () if 1 <= number <= 65535 else (between(1, 65535),)


@functools.lru_cache(maxsize=1024)
def domain(name: str) -> Sequence[str]:
    """IsFullyQualifiedDomainName, without the required value: at least two labels, a dot at the end is fine."""
    plain = name.removesuffix(".")
    if messages := subdomain(plain):
        return (",".join(messages),)
    if "." not in plain:
        return ("should be a domain with at least two segments separated by dots",)
    return ()


def each(field: str, value: Any, messages: Sequence[str]) -> Iterator[Problem]:
    """One Invalid per message."""
    for message in messages:
        yield problems.invalid(field, value, message)


def labels(field: str, found: Mapping[str, str] | None) -> Iterator[Problem]:
    """ValidateLabels."""
    for key, value in (found or {}).items():
        if messages := qualified(key):
            yield from each(field, key, messages)
        if messages := label_value(value):
            yield from each(field, value, messages)


def annotations(field: str, found: Mapping[str, str] | None) -> Iterator[Problem]:
    """ValidateAnnotations."""
    size = 0
    for key, value in (found or {}).items():
        if messages := qualified(key.lower()):
            yield from each(field, key, messages)
        size += len(key.encode()) + len(value.encode())
    if size > 256 * 1024:
        yield problems.too_long(field, 256 * 1024)


def immutable(field: str, new: Any, old: Any) -> Iterator[Problem]:
    """ValidateImmutableField."""
    if new != old:
        yield problems.invalid(field, new, IMMUTABLE)


def nonnegative(field: str, value: int | None) -> Iterator[Problem]:
    """ValidateNonnegativeField."""
    if value is not None and value < 0:
        yield problems.invalid(field, value, NOT_NEGATIVE)


_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def label_selector(field: str, selector: Mapping[str, Any] | None) -> Iterator[Problem]:
    """unversioned ValidateLabelSelector."""
    if not selector:
        return
    yield from labels(f"{field}.matchLabels", selector.get("matchLabels"))
    for index, entry in enumerate(selector.get("matchExpressions") or ()):
        at = f"{field}.matchExpressions[{index}]"
        operator, values = entry.get("operator", ""), entry.get("values") or ()
        if operator in ("In", "NotIn"):
            if not values:
                yield problems.required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                yield problems.forbidden(f"{at}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        else:
            yield problems.invalid(f"{at}.operator", operator, "not a valid selector operator")
        yield from each(f"{at}.key", entry.get("key", ""), qualified(entry.get("key", "")))
        for number, value in enumerate(values):
            yield from each(f"{at}.values[{number}]", value, label_value(value))
