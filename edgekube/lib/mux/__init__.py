"""Many streams over one connection.

Context: an agent behind NAT dials once; through that one TLS connection go its own requests and watches, and the server's requests to its
kubelet. Either side opens streams; each is an `asyncio.Transport`: any protocol (aiohttp's, a StreamReader) works over it unchanged.

    frames.py      bytes to frames and back, pure; what a peer must never send ends in one clear reason
    stream.py      one stream: buffers, windows, half-close
    writer.py      what leaves in which order: nothing waits behind a long transfer
    session.py     the connection: opening and accepting, what the peer may do, the end
    keepalive.py   notices a peer that is gone without a word
    streams.py     streams as asyncio's readers and writers
    words.py       what our agents and servers say over it

Promises: what a peer may make us hold is bounded (a window per stream, a number of streams); a stream that nobody reads holds up no other;
what is short goes before what is long. It wakes up only when there is something to do and for the keep-alive.
"""

from edgekube.lib.mux.frames import ProtocolError
from edgekube.lib.mux.session import Refused, Session, SessionClosed
from edgekube.lib.mux.stream import Stream

__all__ = ("ProtocolError", "Refused", "Session", "SessionClosed", "Stream")
