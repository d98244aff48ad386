"""The values at the leaves of protobuf messages, as JSON shows them: numbers, texts, quantities, times, and what else has a message whose
JSON form is a plain value. Raises Malformed, nothing else.
"""

import base64
import datetime
import math
from collections.abc import Callable, Mapping
from typing import Any

from edgekube.api.protowire import BYTES, VARINT, Malformed, read_double, read_length, read_tag, read_varint, signed, skip

DROP = object()  # a value that leaves no trace in JSON
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def scalar(code: str, data: bytes, at: int, end: int) -> tuple[Any, int]:
    if code == "d":
        double, at = read_double(data, at, end)
        if not math.isfinite(double):
            raise Malformed(f"json: unsupported value: {double}")
        return (int(double) if double.is_integer() and abs(double) < 1e15 else double), at
    value, at = read_varint(data, at, end)
    if code == "b":
        return value != 0, at
    return signed(value, 32 if code == "i" else 64), at


def parts(data: bytes, at: int, end: int, name: str) -> list[tuple[int, int | bytes]]:
    """The fields of a small message; others than numbers and bytes are skipped."""
    found: list[tuple[int, int | bytes]] = []
    while at < end:
        number, wire, at = read_tag(data, at, end, name)
        if wire == VARINT:
            value, at = read_varint(data, at, end)
            found.append((number, value))
        elif wire == BYTES:
            start, at = read_length(data, at, end)
            found.append((number, data[start:at]))
        else:
            at = skip(data, at, end, wire)
    return found


def text_of(data: bytes, at: int, end: int) -> str:
    return data[at:end].decode(errors="replace")  # as Go's JSON does with what is not UTF-8


def _bytes(data: bytes, at: int, end: int) -> str:
    return base64.b64encode(data[at:end]).decode()


def _quantity(data: bytes, at: int, end: int) -> Any:
    text = ""
    for number, value in parts(data, at, end, "Quantity"):
        if number == 1 and isinstance(value, bytes):
            text = value.decode(errors="replace")
    return text or "0"


def _moment(data: bytes, at: int, end: int) -> datetime.datetime | None:
    if at == end:
        return None
    seconds = nanos = 0
    for number, value in parts(data, at, end, "Timestamp"):
        if isinstance(value, int):
            if number == 1:
                seconds = signed(value, 64)
            elif number == 2:
                nanos = signed(value, 32)
    try:
        return _EPOCH + datetime.timedelta(seconds=seconds, microseconds=nanos // 1000)
    except OverflowError as error:
        raise Malformed("Time.MarshalJSON: year outside of range [0,9999]") from error


def _time(data: bytes, at: int, end: int) -> Any:
    moment = _moment(data, at, end)
    if moment is None or moment == _ZERO:
        return DROP
    return f"{moment.year:04}" + moment.strftime("-%m-%dT%H:%M:%SZ")


def _micro_time(data: bytes, at: int, end: int) -> Any:
    moment = _moment(data, at, end)
    if moment is None or moment == _ZERO:
        return DROP
    return f"{moment.year:04}" + moment.strftime("-%m-%dT%H:%M:%S.%fZ")


_ZERO = datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)


def _int_or_string(data: bytes, at: int, end: int) -> Any:
    kind, number_value, text = 0, 0, ""
    for number, value in parts(data, at, end, "IntOrString"):
        if isinstance(value, bytes):
            text = value.decode(errors="replace") if number == 3 else text
        elif number == 1:
            kind = signed(value, 64)
        elif number == 2:
            number_value = signed(value, 32)
    if kind not in (0, 1):
        raise Malformed("impossible IntOrString.Type")
    return text if kind else number_value


def _names(data: bytes, at: int, end: int) -> Any:
    return [value.decode(errors="replace") for number, value in parts(data, at, end, "Items") if number == 1 and isinstance(value, bytes)]


SPECIAL: Mapping[str, Callable[[bytes, int, int], Any]] = {
    "y": _bytes,
    "q": _quantity,
    "t": _time,
    "T": _micro_time,
    "x": _int_or_string,
    "n": _names,
}
