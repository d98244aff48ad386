"""exec and attach: a process in a container and a client, joined until the process ends; then a client of exec gets its exit code.

The client going away ends the conversation, not the process. Output is passed on as the client takes it: nothing is buffered without bound.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from edgekube.kubelet.runtime.protocol import Process, RuntimeFailure
from edgekube.kubelet.server.channels import STDERR, STDOUT, Opened, Wanted, open_channels, until_complete
from edgekube.kubelet.server.http import Reply, Request
from edgekube.lib.tasks import TaskScope

log = logging.getLogger(__name__)

_PIECE = 32 << 10
_GONE = (OSError, ssl.SSLError)

Start = Callable[[Wanted], Awaitable[Process]]


def wanted_of(request: Request) -> Wanted | Reply:
    """The client's wishes; a Reply if they make no sense."""
    tty = request.flag("tty")
    found = Wanted(
        stdin=request.flag("input") or request.flag("stdin"),
        stdout=request.flag("output") or request.flag("stdout"),
        stderr=(request.flag("error") or request.flag("stderr")) and not tty,
        tty=tty,
    )
    if not (found.stdin or found.stdout or found.stderr):
        return Reply(400, b"you must specify at least 1 of stdin, stdout, stderr")
    return found


def status_of(code: int) -> tuple[Mapping[str, Any], str]:
    """The Status of an exit code, and its text for old clients."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}, ""
    text = f"command terminated with non-zero exit code: command terminated with exit code {code}"
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return {"metadata": {}, "status": "Failure", "message": text, "reason": "NonZeroExitCode", "details": {"causes": causes}}, text


def status_of_failure(verb: str, error: str) -> tuple[Mapping[str, Any], str]:
    """The command could not be run at all."""
    text = f"error {verb}: {error}"
    message = f"Internal error occurred: {text}"
    details = {"causes": [{"message": text}]}
    status = {"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "details": details, "code": 500}
    return status, text


async def serve(request: Request, start: Start, *, verb: str, tell_code: bool = True) -> Reply | None:
    """Upgrade, start the process, join both. None: the connection was used.

    Without `tell_code` any end is a success: how a container that one attached to has ended is for its status to say.
    """
    wanted = wanted_of(request)
    if isinstance(wanted, Reply):
        return wanted
    channels = await open_channels(request, wanted)
    if isinstance(channels, Reply):
        return channels
    async with TaskScope("remotecommand") as scope:
        scope.spawn(channels.read(), name="client")
        if await until_complete(channels):
            with contextlib.suppress(*_GONE):
                await _run(channels, wanted, start, verb, tell_code)
    return None


async def _run(channels: Opened, wanted: Wanted, start: Start, verb: str, tell_code: bool) -> None:
    try:
        process = await start(wanted)
    except RuntimeFailure as error:
        await channels.finish(*status_of_failure(verb, str(error)))
        return
    try:
        await channels.write(STDOUT if wanted.stdout else STDERR, b"")  # tells a WebSocket client that it is connected
        code = await join(process, channels, wanted)
        if code is not None:
            await channels.finish(*status_of(code if tell_code else 0))
    except RuntimeFailure as error:
        await channels.finish(*status_of_failure(verb, str(error)))
    finally:
        await process.close()


async def join(process: Process, channels: Opened, wanted: Wanted) -> int | None:
    """Carry bytes until the process has ended (its exit code) or the client has gone (None)."""
    async with TaskScope("join") as scope:
        scope.spawn(_stdin(process, channels), name="stdin")
        scope.spawn(_resizes(process, channels), name="resize")
        outputs = [scope.spawn(_output(process.stdout, channels, STDOUT, wanted.stdout), name="stdout")]
        outputs.append(scope.spawn(_output(process.stderr, channels, STDERR, wanted.stderr), name="stderr"))
        left = scope.spawn(channels.gone.wait(), name="gone")
        ended = scope.spawn(_all(outputs, process), name="wait")
        await asyncio.wait({left, ended}, return_when=asyncio.FIRST_COMPLETED)
        return ended.result() if ended.done() and not ended.cancelled() else None


async def _all(outputs: list[asyncio.Task[None]], process: Process) -> int:
    await asyncio.wait(outputs)
    return await process.wait()


async def _output(source: asyncio.StreamReader, channels: Opened, channel: int, wanted: bool) -> None:
    with contextlib.suppress(*_GONE):
        while data := await source.read(_PIECE):
            if wanted:
                await channels.write(channel, data)


async def _stdin(process: Process, channels: Opened) -> None:
    with contextlib.suppress(*_GONE):
        while data := await channels.stdin.read(_PIECE):
            await process.write(data)
        await process.close_stdin()


async def _resizes(process: Process, channels: Opened) -> None:
    while True:
        width, height = await channels.resizes.get()
        await process.resize(width, height)
