"""Reading zstd by the host's own libzstd, which dpkg, rpm and apk bring along: Python 3.11 can not, and a wheel would be 2 MB.

Raises Missing where the library is not there, OSError for data that is damaged or ends too early.
"""

import ctypes
import io
from typing import IO, Any

MAGIC = b"\x28\xb5\x2f\xfd"
_STEP = 1 << 17


class Missing(RuntimeError):
    """No libzstd on this machine."""


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer alike."""

    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("position", ctypes.c_size_t))


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libzstd.so.1")
    except OSError as error:
        raise Missing("libzstd.so.1 was not found: install the package libzstd1 (or zstd)") from error
    library.ZSTD_createDStream.restype = ctypes.c_void_p
    library.ZSTD_freeDStream.argtypes = (ctypes.c_void_p,)
    library.ZSTD_decompressStream.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Buffer), ctypes.POINTER(_Buffer))
    library.ZSTD_decompressStream.restype = ctypes.c_size_t
    library.ZSTD_isError.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.restype = ctypes.c_char_p
    return library


class ZstdReader(io.RawIOBase):
    """What `raw` holds, unpacked; several frames behind each other count as one. Does not close `raw`."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self._library = raw, _library()
        self._stream = self._library.ZSTD_createDStream()
        self._block = b""
        self._source = _Buffer(None, 0, 0)
        self._open = False  # a frame has begun and not ended
        self._full = False  # the library may hold more than it could hand out

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        view = memoryview(target).cast("B")
        if not view:
            return 0
        out = ctypes.create_string_buffer(min(len(view), _STEP))
        while True:
            if self._source.position == self._source.size and not self._full and not self._refill():
                if self._open:
                    raise OSError("the compressed data ends too early")
                return 0
            sink = _Buffer(ctypes.cast(out, ctypes.c_void_p), len(out), 0)
            left = self._library.ZSTD_decompressStream(self._stream, ctypes.byref(sink), ctypes.byref(self._source))
            if self._library.ZSTD_isError(left):
                raise OSError(f"the compressed data is damaged: {self._library.ZSTD_getErrorName(left).decode()}")
            self._open, self._full = left != 0, sink.position == sink.size
            if sink.position:
                view[: sink.position] = out.raw[: sink.position]
                return int(sink.position)

    def _refill(self) -> bool:
        self._block = self._raw.read(_STEP)
        self._source = _Buffer(ctypes.cast(ctypes.c_char_p(self._block), ctypes.c_void_p), len(self._block), 0)
        return bool(self._block)

    def close(self) -> None:
        if not self.closed and self._stream:
            self._library.ZSTD_freeDStream(self._stream)
            self._stream = None
        super().close()
