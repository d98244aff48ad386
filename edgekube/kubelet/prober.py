"""One attempt of one probe: exec, httpGet, tcpSocket, grpc. Answers with a verdict and upstream's text; never raises for a bad pod.

Probes to the pod's address come from the host's network namespace.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekube.api.types import Obj
from edgekube.kubelet import grpchealth, httpget
from edgekube.kubelet.lifecycle import resolve_port
from edgekube.kubelet.podspec import duration_text
from edgekube.kubelet.runtime.protocol import Runtime, RuntimeFailure

SUCCESS, WARNING, FAILURE, ERROR = "success", "warning", "failure", "unknown"
_STATES = {0: "UNKNOWN", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


@dataclass(frozen=True, slots=True)
class Result:
    """ERROR: the probe itself could not run; it counts neither way."""

    verdict: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to probe."""

    container: Obj
    container_id: str
    address: str


async def probe(spec: Obj, target: Target, *, runtime: Runtime) -> Result:
    timeout = float(spec.get("timeoutSeconds") or 1)
    try:
        if "exec" in spec:
            return await _exec(spec["exec"].get("command") or (), target, runtime, timeout)
        if "httpGet" in spec:
            return await _http(spec["httpGet"], target, timeout)
        if "tcpSocket" in spec:
            return await _tcp(spec["tcpSocket"], target, timeout)
        if "grpc" in spec:
            return await _grpc(spec["grpc"], target, timeout)
    except ValueError as error:
        return Result(ERROR, str(error))
    return Result(ERROR, f"missing probe handler for container {target.container['name']}")


async def _exec(command: Sequence[str], target: Target, runtime: Runtime, timeout: float) -> Result:
    try:
        code, output = await runtime.run_command(target.container_id, command, timeout=timeout)
    except TimeoutError:
        shown = " ".join(command)
        return Result(FAILURE, f'command timed out: "{shown}" timed out after {duration_text(timeout)}')
    except RuntimeFailure as error:
        return Result(ERROR, str(error))
    return Result(SUCCESS if code == 0 else FAILURE, output.decode("utf-8", "replace"))


def _headers(spec: Obj) -> list[tuple[str, str]]:
    found = [(entry["name"], entry.get("value") or "") for entry in spec.get("httpHeaders") or ()]
    names = {name.lower() for name, _ in found}
    defaults = (("User-Agent", "kube-probe/1.36"), ("Accept", "*/*"))
    return found + [(name, value) for name, value in defaults if name.lower() not in names]


async def _http(spec: Obj, target: Target, timeout: float) -> Result:
    port = resolve_port(target.container, spec["port"])
    url = httpget.url_of((spec.get("scheme") or "HTTP").lower(), spec.get("host") or target.address, port, spec.get("path") or "/")
    try:
        answer = await httpget.get(url, _headers(spec), timeout=timeout)
    except httpget.HttpFailed as error:
        return Result(FAILURE, str(error))
    except TimeoutError:
        return Result(FAILURE, f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)')
    body = answer.body.decode("utf-8", "replace")
    if answer.redirected_away:
        return Result(WARNING, f"Probe terminated redirects, Response body: {body}")
    if 200 <= answer.status < 400:
        return Result(SUCCESS, body)
    return Result(FAILURE, f"HTTP probe failed with statuscode: {answer.status}")


async def _tcp(spec: Obj, target: Target, timeout: float) -> Result:
    host, port = spec.get("host") or target.address, resolve_port(target.container, spec["port"])
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return Result(FAILURE, f"dial tcp {where}: i/o timeout")
    except ConnectionRefusedError:
        return Result(FAILURE, f"dial tcp {where}: connect: connection refused")
    except OSError as error:
        return Result(FAILURE, f"dial tcp {where}: connect: {(error.strerror or str(error)).lower()}")
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return Result(SUCCESS)


async def _grpc(spec: Obj, target: Target, timeout: float) -> Result:
    host, port = target.address, resolve_port(target.container, spec["port"])
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        state = await grpchealth.check(host, port, spec.get("service") or "", timeout=timeout)
    except TimeoutError:
        text = f'timeout: failed to connect service "{where}" within {duration_text(timeout)}: context deadline exceeded'
        return Result(FAILURE, text)
    except grpchealth.GrpcFailed as error:
        return Result(FAILURE, f"error: {error}")
    except OSError as error:
        return Result(FAILURE, f'error: failed to connect service at "{where}": {(error.strerror or str(error)).lower()}')
    if state == grpchealth.SERVING:
        return Result(SUCCESS, "service healthy")
    return Result(FAILURE, f'service unhealthy (responded with "{_STATES.get(state, str(state))}")')


def thresholds(spec: Obj) -> tuple[int, int]:
    """Consecutive successes and failures that count."""
    return int(spec.get("successThreshold") or 1), int(spec.get("failureThreshold") or 3)


def period_of(spec: Obj) -> float:
    return float(spec.get("periodSeconds") or 10)


def delay_of(spec: Obj) -> float:
    found: Any = spec.get("initialDelaySeconds") or 0
    return float(found)
