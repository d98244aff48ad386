"""Checksum offload of one interface, asked and set by ioctl: no `ethtool` program is needed."""

import array
import contextlib
import fcntl
import socket
import struct

_SIOCETHTOOL = 0x8946
_GTXCSUM, _STXCSUM = 0x16, 0x17


def tx_checksum(link: str) -> bool:
    """Whether checksums of what is sent are left to the device. True if that can not be asked."""
    with contextlib.suppress(OSError):
        return bool(_ask(link, _GTXCSUM, 0))
    return True


def set_tx_checksum(link: str, on: bool) -> bool:
    """Leave checksums to the device, or make them before. False: the kernel refused."""
    with contextlib.suppress(OSError):
        _ask(link, _STXCSUM, int(on))
        return True
    return False


def _ask(link: str, command: int, value: int) -> int:
    data = array.array("B", struct.pack("=II", command, value))
    request = struct.pack("16sP", link.encode(), data.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        fcntl.ioctl(channel, _SIOCETHTOOL, request)
    return int(struct.unpack("=II", data.tobytes())[1])
