"""Values with a decoder of their own in Go: quantities, times, base64. Written canonically, refused in Go's words."""

import base64
import binascii
import datetime
import re
from functools import lru_cache


class Refused(Exception):
    """A type's own decoder refused a value: that ends decoding at once, ahead of any mismatch found before."""


_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?").match


def base64_fault(text: str) -> int | None:
    """Where Go's decoder stops reading, None if it does not. It skips line breaks."""
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        plain = text.replace("\r", "").replace("\n", "")
        good = _BASE64(plain)
        end = good.end() if good else 0
        if end == len(plain):
            return None
        bad = re.search(r"[^A-Za-z0-9+/]", plain[end:])
        at = end + (bad.start() if bad else len(plain) - end)
        if plain[at : at + 1] == "=" and (at - end) >= 2:
            at += 1
        return _in_original(text, at)
    return None


def _in_original(text: str, at: int) -> int:
    seen = 0
    for index, char in enumerate(text):
        if char in "\r\n":
            continue
        if seen == at:
            return index
        seen += 1
    return len(text)


BAD_QUANTITY = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


@lru_cache(maxsize=4096)
def canonical_quantity(text: str) -> str:
    from edgekube.api import quantity

    try:
        return quantity.canonical(text)
    except ValueError as error:
        raise Refused(str(error) or BAD_QUANTITY) from error


PLAIN_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ").fullmatch
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:\d\d)").fullmatch


def canonical_time(text: str) -> str:
    """RFC 3339 in UTC to the second, as metav1.Time writes it."""
    return _parse_time(text).strftime("%Y-%m-%dT%H:%M:%SZ")


def canonical_micro_time(text: str) -> str:
    """RFC 3339 in UTC with six digits, as metav1.MicroTime writes it."""
    return _parse_time(text).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _parse_time(text: str) -> datetime.datetime:
    found = _RFC3339(text)
    try:
        if not found:
            raise ValueError(text)
        base, fraction, zone = found.groups()
        stamp = datetime.datetime.fromisoformat(f"{base}.{(fraction or '0')[:6]:0<6}{'+00:00' if zone == 'Z' else zone}")
    except ValueError:
        raise Refused(_time_error(text)) from None
    return stamp.astimezone(datetime.UTC)


def _time_error(text: str) -> str:
    """Go names the first element of the layout that does not fit."""
    layout = "2006-01-02T15:04:05Z07:00"
    rest = text
    for pattern, element in _LAYOUT:
        found = re.match(pattern, rest)
        if not found:
            return f'parsing time "{text}" as "{layout}": cannot parse "{rest}" as "{element}"'
        rest = rest[found.end() :]
    if rest:
        return f'parsing time "{text}": extra text: "{rest}"'
    return f'parsing time "{text}": day out of range'


_LAYOUT = (
    (r"\d{4}", "2006"), ("-", "-"), (r"\d\d", "01"), ("-", "-"), (r"\d\d", "02"), ("T", "T"), (r"\d\d", "15"), (":", ":"),
    (r"\d\d", "04"), (":", ":"), (r"\d\d(?:[.,]\d+)?", "05"), (r"Z|[+-]\d\d:\d\d", "Z07:00"),
)  # fmt: skip
