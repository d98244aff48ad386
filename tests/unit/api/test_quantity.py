"""Quantities: value, canonical text and what is refused (cases of upstream's quantity_test.go among them)."""

from fractions import Fraction

import pytest

from edgekube.api import quantity

CANONICAL = [
    ("0", "0"), ("0n", "0"), ("0Ki", "0"), ("1", "1"), ("+1", "1"), ("-1", "-1"), ("01", "1"), ("1.", "1"), (".5", "500m"), ("0.5", "500m"),
    ("500m", "500m"), ("1500m", "1500m"), ("1000m", "1"), ("2000m", "2"), ("1.5", "1500m"), ("100u", "100u"), ("1n", "1n"), ("0.5n", "1n"),
    ("1k", "1k"), ("1000", "1k"), ("1000000", "1M"), ("1234567", "1234567"), ("1.5k", "1500"), ("3M", "3M"), ("9E", "9E"),
    ("1Ki", "1Ki"), ("1024", "1024"), ("1024Ki", "1Mi"), ("1.5Gi", "1536Mi"), ("0.5Gi", "512Mi"), ("1000Mi", "1000Mi"), ("1.1Ki", "1126400m"),
    ("0.5Ki", "512"), ("1e3", "1e3"), ("12e5", "1200e3"), ("1E3", "1e3"), ("1e-3", "1e-3"), ("1e0", "1"), ("1e2", "100"),
    ("9999999999E", "9223372036854775807"), ("1e999999999999", "9223372036854775807"), ("-500m", "-500m"),
]  # fmt: skip
REFUSED = ["", "m", "1x", "1mi", "1 Gi", " 1", "1KiB", "--1", "1.1.1", "0x10", "1e", "1e3Ki", "Gi", "1,5", "\u0661"]


@pytest.mark.parametrize(("text", "expected"), CANONICAL)
def test_canonical(text: str, expected: str) -> None:
    assert quantity.canonical(text) == expected
    assert quantity.canonical(expected) == expected
    assert quantity.parse(expected) == quantity.parse(text)


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text: str) -> None:
    with pytest.raises(quantity.BadQuantity, match="quantities must match the regular expression"):
        quantity.canonical(text)


@pytest.mark.parametrize(
    ("text", "exact", "milli", "value"),
    [
        ("1", Fraction(1), 1000, 1),
        ("100m", Fraction(1, 10), 100, 1),
        ("1u", Fraction(1, 10**6), 1, 1),
        ("1500m", Fraction(3, 2), 1500, 2),
        ("1Ki", Fraction(1024), 1024000, 1024),
        (2, Fraction(2), 2000, 2),
        (0.5, Fraction(1, 2), 500, 1),
    ],
)
def test_numbers_are_rounded_up(text: str | int | float, exact: Fraction, milli: int, value: int) -> None:
    assert (quantity.parse(text), quantity.milli(text), quantity.value(text)) == (exact, milli, value)


def test_formatting_numbers() -> None:
    assert [quantity.format_milli(number) for number in (0, 1, 250, 1000, 1500)] == ["0", "1m", "250m", "1", "1500m"]
    assert [quantity.format_bytes(number) for number in (0, 1, 1024, 1536, 16 << 20)] == ["0", "1", "1Ki", "1536", "16Mi"]


def test_finer_than_a_thousandth_is_rounded_up() -> None:
    assert [quantity.rounded_to_milli(text) for text in ("1u", "1500u", "1000000n", "2", "100m")] == ["1m", "2m", "1m", "2", "100m"]
