"""Streams of a session as asyncio's reader and writer."""

import asyncio
from collections.abc import Callable

from edgekube.lib.mux.session import Session

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def open_streams(session: Session, kind: str, label: str = "", *, limit: int) -> Streams:
    """A new stream to the peer. Raises SessionClosed."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    stream = session.open(kind, label, protocol)
    return reader, asyncio.StreamWriter(stream, protocol, reader, loop)


def served_by(connected: Callable[[asyncio.StreamReader, asyncio.StreamWriter], None], *, limit: int) -> asyncio.Protocol:
    """The protocol for a stream that the peer opened: `connected` is called as asyncio.start_server would."""
    loop = asyncio.get_running_loop()
    return asyncio.StreamReaderProtocol(asyncio.StreamReader(limit=limit, loop=loop), connected, loop=loop)
