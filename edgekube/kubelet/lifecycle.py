"""postStart and preStop handlers, in a running container: exec, httpGet, tcpSocket (deprecated, does nothing), sleep."""

import asyncio
from collections.abc import Sequence
from typing import Any

from edgekube.api.types import Obj
from edgekube.kubelet import httpget, podspec
from edgekube.kubelet.runtime.protocol import Runtime, RuntimeFailure


class HookFailed(Exception):
    """The handler said no, or could not run."""


async def run_handler(
    pod: Obj, container: Obj, handler: Obj, container_id: str, *, runtime: Runtime, pod_ips: Sequence[str], timeout: float
) -> None:
    """Raises HookFailed; TimeoutError when `timeout` seconds pass."""
    async with asyncio.timeout(timeout):
        if "exec" in handler:
            await _exec(handler["exec"].get("command") or (), container, container_id, runtime, timeout)
        elif "httpGet" in handler:
            await _http(pod, container, handler["httpGet"], pod_ips, timeout)
        elif "sleep" in handler:
            await asyncio.sleep(float(handler["sleep"].get("seconds") or 0))


async def _exec(command: Sequence[str], container: Obj, container_id: str, runtime: Runtime, timeout: float) -> None:
    try:
        code, output = await runtime.run_command(container_id, command, timeout=timeout)
    except RuntimeFailure as error:
        raise HookFailed(str(error)) from error
    if code != 0:
        text = output.decode("utf-8", "replace").strip()
        said = f": {text}" if text else ""
        shown = " ".join(command)
        raise HookFailed(f"command '{shown}' exited with {code}{said} (container {container['name']})")


async def _http(pod: Obj, container: Obj, action: Obj, pod_ips: Sequence[str], timeout: float) -> None:
    host = action.get("host") or (pod_ips[0] if pod_ips else "127.0.0.1")
    try:
        port = resolve_port(container, action["port"])
    except ValueError as error:
        raise HookFailed(str(error)) from error
    headers = [("User-Agent", "kube-lifecycle/1.36"), ("Accept", "*/*")]
    headers += [(entry["name"], entry.get("value") or "") for entry in action.get("httpHeaders") or ()]
    url = httpget.url_of((action.get("scheme") or "HTTP").lower(), host, port, action.get("path") or "/")
    try:
        answer = await httpget.get(url, headers, timeout=timeout)
    except httpget.HttpFailed as error:
        raise HookFailed(f"{error} (pod {podspec.described(pod)})") from error
    if answer.status >= 400:
        raise HookFailed(f"HTTP hook failed with status code {answer.status}")


def resolve_port(container: Obj, port: Any) -> int:
    """A number, or the name of one of the container's ports. Raises ValueError."""
    if isinstance(port, int):
        number = port
    elif str(port).isdigit():
        number = int(port)
    else:
        found = next((entry["containerPort"] for entry in container.get("ports") or () if entry.get("name") == port), None)
        if found is None:
            raise ValueError(f"couldn't find port: {port} in container {container['name']}")
        number = found
    if not 0 < number < 65536:
        raise ValueError(f"invalid port number: {number}")
    return number
