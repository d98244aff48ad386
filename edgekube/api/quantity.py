"""resource.Quantity: exact values and the canonical text (k8s.io/apimachinery/pkg/api/resource/quantity.go).

`500m`, `1Gi`, `2e3`, `0.5`: a signed decimal number with a decimal SI, binary SI or exponent suffix. Values finer than nano are rounded up.
Parsed results are remembered: pods repeat the same few texts.
"""

import functools
import math
import re
from fractions import Fraction

_TEXT = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d+)?", re.ASCII)
_BINARY = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_SUFFIX_OF = {power: suffix for suffix, power in _DECIMAL.items()}
_NANO = 10**9
_MOST = Fraction(2**63 - 1)
_MAX_EXPONENT = 100  # enough to reach the largest value and the smallest from anywhere; more digits only burn time
_MAX_DIGITS = 400


class BadQuantity(ValueError):
    """Not a quantity; the message is upstream's."""

    def __init__(self) -> None:
        super().__init__(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )


@functools.lru_cache(maxsize=4096)
def _read(text: str) -> tuple[Fraction, str]:
    """Value (exact, at most nano precision, at most an int64) and format: binary, decimal or exponent."""
    found = _TEXT.fullmatch(text)
    if found is None or len(text) > _MAX_DIGITS:
        raise BadQuantity
    sign, number, suffix = found[1], found[2], found[3] or ""
    value = Fraction(number if not number.startswith(".") else "0" + number)
    if suffix in _BINARY:
        value, form = value * _BINARY[suffix], "binary"
    elif suffix in _DECIMAL:
        value, form = value * Fraction(10) ** _DECIMAL[suffix], "decimal"
    else:
        power = max(-_MAX_EXPONENT, min(_MAX_EXPONENT, int(suffix[1:])))
        value, form = value * Fraction(10) ** power, "exponent"
    nano = value * _NANO
    if nano.denominator != 1:
        value = Fraction(math.ceil(nano), _NANO)
    value = min(value, _MOST)
    return (-value if sign == "-" else value), form


def parse(text: str | int | float) -> Fraction:
    """The exact value. Raises BadQuantity."""
    return _read(text if isinstance(text, str) else repr(text))[0]


@functools.lru_cache(maxsize=4096)
def milli(text: str | int | float) -> int:
    """Thousandths, rounded up."""
    return math.ceil(parse(text) * 1000)


@functools.lru_cache(maxsize=4096)
def value(text: str | int | float) -> int:
    """Whole units, rounded up."""
    return math.ceil(parse(text))


def rounded_to_milli(text: str) -> str:
    """The text, or the next multiple of a thousandth above it: finer amounts of a resource are not kept."""
    return format_milli(milli(text)) if text[-1:] in ("n", "u") else text


@functools.lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """As upstream writes it: no fraction, the largest suffix that keeps the value exact. Raises BadQuantity."""
    number, form = _read(text)
    if number == 0:
        return "0"
    if form == "binary" and (number.denominator != 1 or abs(number) < 1024):
        form = "decimal"
    if form == "binary":
        return _binary(int(number))
    mantissa, power = _decimal(number)
    if form == "exponent":
        return f"{mantissa}e{power}" if power else str(mantissa)
    return f"{mantissa}{_SUFFIX_OF[power]}"


def _binary(number: int) -> str:
    suffix = ""
    for name, factor in _BINARY.items():
        if number % factor == 0:
            suffix = name
    return f"{number // _BINARY[suffix]}{suffix}" if suffix else str(number)


def _decimal(number: Fraction) -> tuple[int, int]:
    """Integer mantissa and a power of ten that is a multiple of three, -9..18."""
    power = -9
    scaled = number * _NANO
    mantissa = int(scaled)
    while power < 18 and mantissa % 1000 == 0:
        mantissa //= 1000
        power += 3
    return mantissa, power


def format_bytes(number: int) -> str:
    """Bytes as a quantity: 16384Ki."""
    return _binary(number) if number else "0"


def format_milli(number: int) -> str:
    """Thousandths as a quantity: 250m, 2."""
    return canonical(f"{number}m")
