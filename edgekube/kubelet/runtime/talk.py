"""Talking to what runs in a container: commands, exec, attach, and conmon's log door."""

import asyncio
import contextlib
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from edgekube.kubelet.runtime import spec as specs
from edgekube.kubelet.runtime.observer import Observer
from edgekube.kubelet.runtime.oci import OciExec
from edgekube.kubelet.runtime.protocol import Process, RuntimeDown, RuntimeFailure
from edgekube.kubelet.runtime.rest import RestError
from edgekube.kubelet.runtime.service import Service
from edgekube.kubelet.runtime.settings import RuntimeConfig
from edgekube.kubelet.runtime.streams import HijackedProcess


class Conversations:
    """Commands go straight through the OCI runtime (6 ms of CPU); what somebody talks to goes over a hijacked connection of podman."""

    def __init__(self, *, config: RuntimeConfig, service: Service, observer: Observer) -> None:
        self._service, self._observer = service, observer
        self._oci = OciExec(config.run_dir, service.enter_prefix)
        observer.on_over(self._oci.forget)

    async def run_command(self, container_id: str, argv: Sequence[str], *, timeout: float) -> tuple[int, bytes]:
        entry = await self._observer.running(container_id)
        bundle = await self._observer.bundle(entry)
        return await self._oci.run(container_id, argv, runtime=self._service.oci_runtime, config=bundle / "config.json", timeout=timeout)

    async def exec(self, container_id: str, argv: Sequence[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> Process:
        await self._observer.running(container_id)
        body: dict[str, Any] = {
            "AttachStdin": stdin,
            "AttachStdout": stdout or tty,
            "AttachStderr": stderr and not tty,
            "Tty": tty,
            "Cmd": list(argv),
        }
        if tty:
            body["Env"] = ["TERM=xterm"]
        try:
            session = (await self._observer.call("POST", f"/containers/{container_id}/exec", body=body))["Id"]
            stream = await self._service.rest.hijack(f"/exec/{session}/start", body={"Detach": False, "Tty": tty}, timeout=60.0)
        except RestError as error:
            raise RuntimeFailure("ExecError", f"failed to exec in container: {error}") from error

        async def resize(width: int, height: int) -> None:
            await self._resize(f"/exec/{session}/resize", width, height)

        code = partial(self._exec_code, session)
        return HijackedProcess(stream, tty=tty, resize=resize, exit_code=code, program=argv[0] if argv else "")

    async def attach(self, container_id: str, *, stdin: bool, stdout: bool, stderr: bool) -> Process:
        entry = await self._observer.running(container_id)
        tty = entry.labels.get(specs.TTY) == "true"
        query = {"stream": True, "stdin": stdin, "stdout": stdout or tty, "stderr": stderr and not tty}
        try:
            stream = await self._service.rest.hijack(f"/containers/{container_id}/attach", query=query)
        except RestError as error:
            raise RuntimeFailure("AttachError", f"failed to attach to container: {error}") from error

        async def resize(width: int, height: int) -> None:
            await self._resize(f"/containers/{container_id}/resize", width, height)

        async def exit_code() -> int:
            await entry.ended.wait()
            return entry.info.exit_code

        return HijackedProcess(stream, tty=tty, resize=resize, exit_code=exit_code)

    async def _resize(self, path: str, width: int, height: int) -> None:
        """A client tells its size at once, podman takes it only when the process is up: try for a second, then it has ended."""
        for pause in (0.02, 0.05, 0.1, 0.2, 0.3, 0.3):
            with contextlib.suppress(RestError, RuntimeDown):
                await self._observer.call("POST", path, query={"w": width, "h": height})
                return
            await asyncio.sleep(pause)

    async def reopen_log(self, container_id: str) -> None:
        entry = await self._observer.running(container_id)
        bundle = await self._observer.bundle(entry)
        try:
            door = os.open(bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(door, b"2 0 0\n")
            finally:
                os.close(door)
        except OSError as error:
            raise RuntimeFailure("ReopenLogError", f"conmon does not listen: {error}") from error

    async def _exec_code(self, session: str) -> int:
        delay = 0.005
        while delay < 5.0:
            try:
                found = await self._observer.call("GET", f"/exec/{session}/json")
            except RestError as error:
                if error.status == 404:
                    break
                raise
            if not found.get("Running"):
                return int(found.get("ExitCode") or 0)
            await asyncio.sleep(delay)
            delay *= 2
        return 255
