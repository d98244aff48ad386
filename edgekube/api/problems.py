"""Problems in upstream's words (k8s.io/apimachinery/pkg/util/validation/field/errors.go): one function per reason."""

from collections.abc import Iterable
from typing import Any

import orjson

from edgekube.errors import Problem

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


def quoted(text: str) -> str:
    """A string as Go's %q writes it."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(_ESCAPES.get(char) or (char if char.isprintable() else _code(ord(char))) for char in text) + '"'


def _code(number: int) -> str:
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _shown(value: Any) -> str:
    """A value as Go's field.Error shows it: strings quoted, numbers plain, the rest as Go's JSON."""
    if isinstance(value, str):
        return quoted(value)
    text = orjson.dumps(value).decode()
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def required(field: str, why: str = "") -> Problem:
    return Problem(field, "FieldValueRequired", "Required value" + (f": {why}" if why else ""))


def invalid(field: str, value: Any, why: str) -> Problem:
    return Problem(field, "FieldValueInvalid", f"Invalid value: {_shown(value)}" + (f": {why}" if why else ""))


def not_supported(field: str, value: Any, allowed: Iterable[str]) -> Problem:
    names = ", ".join(quoted(name) for name in allowed)
    text = f"Unsupported value: {_shown(value)}"
    return Problem(field, "FieldValueNotSupported", f"{text}: supported values: {names}" if names else text)


def duplicate(field: str, value: Any) -> Problem:
    return Problem(field, "FieldValueDuplicate", f"Duplicate value: {_shown(value)}")


def forbidden(field: str, why: str) -> Problem:
    return Problem(field, "FieldValueForbidden", "Forbidden" + (f": {why}" if why else ""))


def not_found(field: str, value: Any) -> Problem:
    return Problem(field, "FieldValueNotFound", f"Not found: {_shown(value)}")


def too_long(field: str, limit: int) -> Problem:
    """Upstream does not repeat what is too long."""
    return Problem(field, "FieldValueTooLong", f"Too long: may not be more than {limit} byte{'' if limit == 1 else 's'}")


def too_many(field: str, actual: int, limit: int) -> Problem:
    return Problem(field, "FieldValueTooMany", f"Too many: {actual}: must have at most {limit} item{'' if limit == 1 else 's'}")


def type_invalid(field: str, value: Any, why: str) -> Problem:
    return Problem(field, "FieldValueTypeInvalid", f"Invalid value: {_shown(value)}: {why}")


def internal(field: str, why: str) -> Problem:
    return Problem(field, "InternalError", f"Internal error: {why}")
