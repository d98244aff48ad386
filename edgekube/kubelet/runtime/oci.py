"""Probe and lifecycle commands, straight through the OCI runtime: `crun exec`, a sixth of the CPU of an exec through podman, no conmon.

The process is described whole (`--process`), copied from the container's own config.json: crun's `exec` flags would lose user, groups and
folder. Reads config.json of the container (cached while it lives).
"""

import asyncio
import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgekube.kubelet.runtime import pidfd
from edgekube.kubelet.runtime.info import start_message
from edgekube.kubelet.runtime.protocol import RuntimeFailure
from edgekube.lib.process import clean_environment, require

KEPT_OUTPUT = 16 << 10
_DRAIN_SECONDS = 0.2
_READ = 64 << 10


class OciExec:
    """Runs commands in containers. At most `parallel` at a time."""

    def __init__(self, run_dir: Path, prefix: Callable[[], list[str]], *, parallel: int = 4) -> None:
        self._run_dir, self._prefix = run_dir, prefix
        self._processes: dict[str, dict[str, Any]] = {}
        self._gate = asyncio.Semaphore(parallel)

    def forget(self, container_id: str) -> None:
        self._processes.pop(container_id, None)

    async def run(self, container_id: str, argv: Sequence[str], *, runtime: str, config: Path, timeout: float) -> tuple[int, bytes]:
        """Exit code and the first 16 KiB of stdout and stderr together. Raises TimeoutError after killing the command."""
        if container_id not in self._processes:
            self._processes[container_id] = await asyncio.to_thread(_process_of, config)
        process = {**self._processes[container_id], "args": list(argv)}
        async with self._gate:
            return await self._run(container_id, process, runtime, timeout)

    async def _run(self, container_id: str, process: dict[str, Any], runtime: str, timeout: float) -> tuple[int, bytes]:
        with tempfile.NamedTemporaryFile(dir=self._run_dir, prefix="exec-", suffix=".pid") as pid_file:
            spec = os.memfd_create("process")
            reading, writing = os.pipe2(os.O_CLOEXEC)
            try:
                os.write(spec, json.dumps(process).encode())
                command = [*self._prefix(), require(runtime, package=runtime), "exec", "--process", f"/proc/self/fd/{spec}"]
                child = await asyncio.create_subprocess_exec(
                    *command,
                    "--pid-file",
                    pid_file.name,
                    container_id,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=writing,
                    stderr=writing,
                    pass_fds=(spec,),
                    env=clean_environment(),
                    start_new_session=True,
                )
            except BaseException:
                os.close(reading)
                raise
            finally:
                os.close(spec)
                os.close(writing)
            return await _finish(child, reading, Path(pid_file.name), timeout, process["args"][0])


async def _finish(child: asyncio.subprocess.Process, reading: int, pid_file: Path, timeout: float, program: str) -> tuple[int, bytes]:
    kept = bytearray()
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()
    os.set_blocking(reading, False)

    def collect() -> None:
        try:
            data = os.read(reading, _READ)
        except BlockingIOError:
            return
        kept.extend(data[: KEPT_OUTPUT - len(kept)])
        if not data:
            loop.remove_reader(reading)
            closed.set()

    loop.add_reader(reading, collect)
    try:
        async with asyncio.timeout(timeout):
            code = await child.wait()
        with contextlib.suppress(TimeoutError):  # something it left in the background may hold the pipe
            async with asyncio.timeout(_DRAIN_SECONDS):
                await closed.wait()
    except TimeoutError as error:
        raise TimeoutError(f"command timed out after {timeout:g} s") from error
    finally:
        if child.returncode is None:
            await _end(child, pid_file)
        loop.remove_reader(reading)
        os.close(reading)
    if code != 0 and not os.stat(pid_file).st_size:
        why = start_message(kept.decode(errors="replace").strip(), program)
        raise RuntimeFailure("ExecError", f"failed to exec in container: {why}")
    return (128 - code if code < 0 else code), bytes(kept)


async def _end(child: asyncio.subprocess.Process, pid_file: Path) -> None:
    """The command first, so that the runtime collects it; the runtime itself only if that did not help."""
    _kill_inside(pid_file)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await child.wait()
            return
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    await child.wait()


def _kill_inside(pid_file: Path) -> None:
    """Killing the runtime would leave the command itself running."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = pidfd.open_pidfd(int(pid_file.read_text()))
        if descriptor is not None:
            pidfd.send(descriptor, signal.SIGKILL)
            os.close(descriptor)


def _process_of(config: Path) -> dict[str, Any]:
    try:
        process: dict[str, Any] = json.loads(config.read_bytes())["process"]
    except (OSError, ValueError, KeyError) as error:
        raise RuntimeFailure("ContainerNotRunning", f"its configuration cannot be read: {error}") from error
    process.pop("consoleSize", None)
    return {**process, "terminal": False}
