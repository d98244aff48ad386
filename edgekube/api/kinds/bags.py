"""What ConfigMaps and Secrets share: named entries, a limit for all of them, and a switch that freezes them (core/validation). Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from edgekube.api import problems, validate
from edgekube.api.types import Obj
from edgekube.errors import Problem

LARGEST = 1024 * 1024
_FROZEN = "field is immutable when `immutable` is set"


def keys(field: str, entries: Mapping[str, Any]) -> Iterator[Problem]:
    for key in entries:
        yield from validate.each(f"{field}[{key}]", key, validate.config_key(key))


def decoded_size(entries: Mapping[str, str]) -> int:
    """Bytes that base64 texts stand for."""
    return sum(len(text) // 4 * 3 - text[-2:].count("=") for text in entries.values())


def frozen(new: Obj, old: Obj, *fields: str) -> Iterator[Problem]:
    """Once immutable, always immutable."""
    if not old.get("immutable"):
        return
    if not new.get("immutable"):
        yield problems.forbidden("immutable", _FROZEN)
    for field in fields:
        if (new.get(field) or {}) != (old.get(field) or {}):
            yield problems.forbidden(field, _FROZEN)
