"""Bytes between two connections, both ways, with an end in one direction passed on where that can be said."""

import asyncio
import ssl

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_PIECE = 64 * 1024


async def both_ways(one: Streams, other: Streams) -> None:
    """Until both directions have ended. Closes nothing; an end in one direction is passed on as such where the transport can say it."""
    async with asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[bool]] = []
        for source, sink in ((one, other), (other, one)):
            tasks.append(group.create_task(_pump(source[0], sink[1])))
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not all(task.result() for task in done):  # TLS knows no half-open connection: the end of one way is the end
            for task in tasks:
                task.cancel()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Copy until the end. True if the end could be passed on and the other direction may go on."""
    try:
        while data := await reader.read(_PIECE):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
            return True
    except (OSError, ssl.SSLError):
        return False
    return False
