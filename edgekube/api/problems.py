"""Problems in upstream's words (k8s.io/apimachinery/pkg/util/validation/field/errors.go): one function per reason."""

from collections.abc import Iterable
from typing import Any

import orjson

from edgekube.errors import Problem


def _shown(value: Any) -> str:
    """A value as Go's field.Error shows it: strings quoted, the rest as JSON."""
    if isinstance(value, str):
        return orjson.dumps(value).decode()
    if value is None:
        return "null"
    return orjson.dumps(value).decode()


def required(field: str, why: str = "") -> Problem:
    return Problem(field, "FieldValueRequired", "Required value" + (f": {why}" if why else ""))


def invalid(field: str, value: Any, why: str) -> Problem:
    return Problem(field, "FieldValueInvalid", f"Invalid value: {_shown(value)}: {why}")


def not_supported(field: str, value: Any, allowed: Iterable[str]) -> Problem:
    names = ", ".join(orjson.dumps(name).decode() for name in allowed)
    return Problem(field, "FieldValueNotSupported", f"Unsupported value: {_shown(value)}" + (f": supported values: {names}" if names else ""))


def duplicate(field: str, value: Any) -> Problem:
    return Problem(field, "FieldValueDuplicate", f"Duplicate value: {_shown(value)}")


def forbidden(field: str, why: str) -> Problem:
    return Problem(field, "FieldValueForbidden", f"Forbidden: {why}")


def not_found(field: str, value: Any) -> Problem:
    return Problem(field, "FieldValueNotFound", f"Not found: {_shown(value)}")


def too_long(field: str, limit: int) -> Problem:
    return Problem(field, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")


def too_many(field: str, actual: int, limit: int) -> Problem:
    return Problem(field, "FieldValueTooMany", f"Too many: {actual}: must have at most {limit} items")


def type_invalid(field: str, value: Any, why: str) -> Problem:
    return Problem(field, "FieldValueTypeInvalid", f"Invalid value: {_shown(value)}: {why}")


def internal(field: str, why: str) -> Problem:
    return Problem(field, "InternalError", f"Internal error: {why}")
