"""Run programs of the host with a deadline and a clean environment.

A child that saw NOTIFY_SOCKET would speak to systemd in our name. What the package of the program puts into the environment is gone
before anything runs (see program.py).
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_OURS = ("NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_")  # what systemd tells this process alone


class ProgramMissing(RuntimeError):
    """A program that edgekube needs is not on the host's PATH."""


class ProgramTimeout(RuntimeError):
    """A program did not end before its deadline and was killed."""


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended."""

    code: int
    stdout: bytes
    stderr: bytes


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The host's environment for children: nothing that is meant for this process alone, plus `extra`."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)} | dict(extra or {})


def require(program: str, *, package: str) -> str:
    """Path of `program`. Raises ProgramMissing naming the package that has it."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")
    if path is None:
        raise ProgramMissing(f"{program} was not found: install the package {package}")
    return path


async def run(argv: Sequence[str], *, timeout: float, stdin: bytes | None = None, env: Mapping[str, str] | None = None) -> Completed:
    """Run `argv` to its end. Raises ProgramMissing, or ProgramTimeout after `timeout` seconds (the program is killed)."""
    try:
        with _input(stdin) as source:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=source,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=clean_environment(env),
            )
    except FileNotFoundError as error:
        raise ProgramMissing(f"{argv[0]} was not found") from error
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await process.communicate()
    except TimeoutError as error:
        raise ProgramTimeout(f"{argv[0]} did not end within {timeout:g} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return Completed(process.returncode or 0, stdout, stderr)


@contextlib.contextmanager
def _input(data: bytes | None) -> Iterator[int]:
    """A file in memory, no pipe: a program that ends before it has read everything is no error, which uvloop's pipes make of it."""
    if data is None:
        yield asyncio.subprocess.DEVNULL
        return
    with open(os.memfd_create("stdin"), "w+b") as file:
        file.write(data)
        file.seek(0)
        yield file.fileno()
