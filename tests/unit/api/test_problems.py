"""How refusals show values: as Go's field.Error does."""

from typing import Any

import pytest

from edgekube.api import problems
from edgekube.errors import Problem


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x", '"x"'),
        ("", '""'),
        ('a"b', r'"a\"b"'),
        ("a\\b", r'"a\\b"'),
        ("a\nb\t", r'"a\nb\t"'),
        ("\x00\x7f", r'"\x00\x7f"'),
        ("é", '"é"'),
        ("\u200b", r'"\u200b"'),
        (5, "5"),
        (-1, "-1"),
        (True, "true"),
        (None, "null"),
        (["a", "b"], '["a","b"]'),
        ({"matchLabels": {"a": "<b>&"}}, r'{"matchLabels":{"a":"\u003cb\u003e\u0026"}}'),
    ],
)
def test_values(value: Any, shown: str) -> None:
    assert problems.invalid("spec.x", value, "why").message == f"Invalid value: {shown}: why"
    assert problems.duplicate("spec.x", value).message == f"Duplicate value: {shown}"
    assert problems.not_found("spec.x", value).message == f"Not found: {shown}"


@pytest.mark.parametrize(
    ("problem", "reason", "message"),
    [
        (problems.required("f"), "FieldValueRequired", "Required value"),
        (problems.required("f", "say it"), "FieldValueRequired", "Required value: say it"),
        (problems.forbidden("f", "no"), "FieldValueForbidden", "Forbidden: no"),
        (problems.not_supported("f", "a", ("b", "c")), "FieldValueNotSupported", 'Unsupported value: "a": supported values: "b", "c"'),
        (problems.not_supported("f", "a", ()), "FieldValueNotSupported", 'Unsupported value: "a"'),
        (problems.too_long("f", 253), "FieldValueTooLong", "Too long: may not be more than 253 bytes"),
        (problems.too_long("f", 1), "FieldValueTooLong", "Too long: may not be more than 1 byte"),
        (problems.too_many("f", 3, 2), "FieldValueTooMany", "Too many: 3: must have at most 2 items"),
        (problems.type_invalid("f", "a", "no"), "FieldValueTypeInvalid", 'Invalid value: "a": no'),
        (problems.internal("f", "broken"), "InternalError", "Internal error: broken"),
    ],
)
def test_reasons(problem: Problem, reason: str, message: str) -> None:
    assert problem == Problem("f", reason, message)
