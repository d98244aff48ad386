"""Two sessions over a real socket pair, and a peer that speaks raw frames."""

import asyncio
import contextlib
import socket

from edgekube.lib.mux import Session, frames
from edgekube.lib.mux.streams import open_streams, served_by


class Raw(asyncio.Protocol):
    """A peer that may do anything: what it received, decoded, and `send`."""

    def __init__(self):
        self.decoder = frames.Decoder()
        self.frames = []
        self.on_data = lambda: None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.frames += self.decoder.feed(data)
        self.on_data()

    def connection_lost(self, exc):
        self.lost.set_result(exc)

    def send(self, *pieces):
        self.transport.write(b"".join(pieces))

    def got(self, kind):
        return [frame for frame in self.frames if frame.kind == kind]


async def connect(protocol, sock):
    sock.setblocking(False)
    return await asyncio.get_running_loop().create_connection(lambda: protocol, sock=sock)


def echo(stream):
    """Upper case, until the end."""

    async def answer(reader, writer):
        while data := await reader.read(65536):
            writer.write(data.upper())
            await writer.drain()
        writer.close()

    tasks = echo.__dict__.setdefault("tasks", set())

    def connected(reader, writer):
        task = asyncio.get_running_loop().create_task(answer(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return served_by(connected, limit=65536)


@contextlib.asynccontextmanager
async def pair(accept=echo, **options):
    """Dialer and acceptor."""
    one, other = socket.socketpair()
    dialer = Session(dialer=True, accept=accept, **options)
    acceptor = Session(dialer=False, accept=accept, **options)
    await connect(dialer, one)
    await connect(acceptor, other)
    try:
        yield dialer, acceptor
    finally:
        dialer.close("done")
        acceptor.close("done")
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def against_raw(accept=echo, **options):
    """A session, and a raw peer that dialed."""
    one, other = socket.socketpair()
    raw = Raw()
    session = Session(dialer=False, accept=accept, **options)
    await connect(raw, one)
    await connect(session, other)
    try:
        yield session, raw
    finally:
        session.close("done")
        raw.transport.abort()
        await asyncio.sleep(0)


def talk(session, kind="echo", label=""):
    return open_streams(session, kind, label, limit=65536)
