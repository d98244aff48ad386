"""Run programs of the host with a deadline and a clean environment.

A frozen edgekube carries its own shared libraries; `clean_environment` keeps LD_LIBRARY_PATH and PyInstaller's variables
from reaching podman, nft or runc.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# What PyInstaller and systemd tell this process alone: a child that saw NOTIFY_SOCKET would speak to systemd in our name.
_OURS = ("_PYI_", "_MEIPASS", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_")


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
    """The host's environment for children: nothing of the frozen program's own, plus `extra`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    original = environment.pop("LD_LIBRARY_PATH_ORIG", None)
    if original is not None:
        environment["LD_LIBRARY_PATH"] = original
    elif "_PYI_APPLICATION_HOME_DIR" in os.environ:
        environment.pop("LD_LIBRARY_PATH", None)
    environment.update(extra or {})
    return environment


def require(program: str, *, package: str) -> str:
    """Path of `program`. Raises ProgramMissing naming the package that has it."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")
    if path is None:
        raise ProgramMissing(f"{program} was not found: install the package {package}")
    return path


async def run(argv: Sequence[str], *, timeout: float, stdin: bytes | None = None, env: Mapping[str, str] | None = None) -> Completed:
    """Run `argv` to its end. Raises ProgramMissing, or ProgramTimeout after `timeout` seconds (the program is killed)."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=clean_environment(env),
        )
    except FileNotFoundError as error:
        raise ProgramMissing(f"{argv[0]} was not found") from error
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await process.communicate(stdin)
    except TimeoutError as error:
        raise ProgramTimeout(f"{argv[0]} did not end within {timeout:g} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return Completed(process.returncode or 0, stdout, stderr)
