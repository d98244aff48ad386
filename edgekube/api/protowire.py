"""The wire format of protocol buffers: varints, tags, lengths, and skipping what is unknown. Errors in the words of Go's decoder."""

import struct

VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = range(6)
_MASK = (1 << 64) - 1
_SMALL = tuple(bytes((value,)) for value in range(128))
_MAX_GROUPS = 100


class Malformed(Exception):
    """The bytes are no message of the expected kind."""


def varint(value: int) -> bytes:
    """An unsigned or negative 64-bit number."""
    if 0 <= value < 128:
        return _SMALL[value]
    value &= _MASK
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(number: int, wire: int) -> bytes:
    return varint(number << 3 | wire)


def chunk(prefix: bytes, data: bytes) -> bytes:
    """A length-delimited field; `prefix` is its tag."""
    size = len(data)
    return prefix + (_SMALL[size] if size < 128 else varint(size)) + data


def read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """(value, position behind it). Raises Malformed."""
    if at < end and (byte := data[at]) < 128:
        return byte, at + 1
    value = shift = 0
    while shift < 64:
        if at >= end:
            raise Malformed("unexpected EOF")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & _MASK, at
        shift += 7
    raise Malformed("proto: integer overflow")


def read_length(data: bytes, at: int, end: int) -> tuple[int, int]:
    """(start, stop) of a length-delimited value. Raises Malformed."""
    size, at = read_varint(data, at, end)
    if size >> 63:
        raise Malformed("proto: negative length found during unmarshaling")
    if at + size > end:
        raise Malformed("unexpected EOF")
    return at, at + size


def read_double(data: bytes, at: int, end: int) -> tuple[float, int]:
    """Raises Malformed."""
    if at + 8 > end:
        raise Malformed("unexpected EOF")
    value: float = struct.unpack_from("<d", data, at)[0]
    return value, at + 8


def signed(value: int, bits: int) -> int:
    """Two's complement of the low `bits`."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def read_tag(data: bytes, at: int, end: int, message: str) -> tuple[int, int, int]:
    """(number, wire type, position behind the tag). Raises Malformed."""
    key, at = read_varint(data, at, end)
    number, wire = signed(key >> 3, 32), key & 7
    if wire == END_GROUP:
        raise Malformed(f"proto: {message}: wiretype end group for non-group")
    if number <= 0:
        raise Malformed(f"proto: {message}: illegal tag {number} (wire type {key})")
    return number, wire, at


def skip(data: bytes, at: int, end: int, wire: int) -> int:
    """The position behind a value of an unknown field. Raises Malformed."""
    depth = 0
    while True:
        if wire == VARINT:
            _, at = read_varint(data, at, end)
        elif wire == BYTES:
            _, at = read_length(data, at, end)
        elif wire in (FIXED64, FIXED32):
            at += 8 if wire == FIXED64 else 4
            if at > end:
                raise Malformed("unexpected EOF")
        elif wire == GROUP:
            depth += 1
            if depth > _MAX_GROUPS:
                raise Malformed("proto: exceeded maximum nesting depth")
        elif wire == END_GROUP:
            depth -= 1
            if depth < 0:
                raise Malformed("proto: unexpected end of group")
        else:
            raise Malformed(f"proto: illegal wireType {wire}")
        if depth == 0:
            return at
        key, at = read_varint(data, at, end)
        wire = key & 7
