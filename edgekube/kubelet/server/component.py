"""The node's HTTPS API: the listener, the gate, and which address is answered by what.

    /healthz /pods /runningpods /metrics[/resource|/cadvisor|/probes] /stats/summary /configz /logs/[path]
    /containerLogs/{ns}/{pod}/{container}       /run|exec|attach/{ns}/{pod}[/{uid}]/{container}       /portForward/{ns}/{pod}[/{uid}]

A caller needs a certificate of our authority or a token the gate knows: 401 without, 403 when the gate says no. The TLS context is the
caller's; loading a renewed certificate into it changes new connections and leaves open ones alone.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import orjson

from edgekube.kubelet.runtime.protocol import Process, Runtime, RuntimeDown, RuntimeFailure
from edgekube.kubelet.server import portforward, remotecommand
from edgekube.kubelet.server.channels import Wanted
from edgekube.kubelet.server.containerlogs import ContainerLogs
from edgekube.kubelet.server.gate import Gate, question
from edgekube.kubelet.server.hostlogs import host_log
from edgekube.kubelet.server.http import Caller, Reply, Request, serve_connection
from edgekube.kubelet.server.protocol import KnownPod, NodeStats, Pods
from edgekube.kubelet.server.usage import Usage
from edgekube.lib import metrics
from edgekube.lib.clock import Clock
from edgekube.lib.tasks import TaskScope

log = logging.getLogger(__name__)

_JSON = "application/json"
_HANDSHAKE_SECONDS = 10.0
_READ_LIMIT = 128 << 10
STRANGERS = 100  # connections without a certificate; they may have a token


class KubeletServer:
    """A component."""

    name = "kubelet-server"

    def __init__(
        self,
        *,
        node_name: str,
        address: str,
        port: int,
        tls: ssl.SSLContext,
        gate: Gate,
        pods: Pods,
        runtime: Runtime,
        clock: Clock,
        stats: NodeStats | None = None,
        healthy: Callable[[], Awaitable[bool]] | None = None,
        host_logs: Path = Path("/var/log"),
        log_dir: Path = Path("/var/log/pods"),
    ) -> None:
        self._address, self._port, self._tls, self._gate = address, port, tls, gate
        self._pods, self._runtime, self._host_logs, self._healthy = pods, runtime, host_logs, healthy
        self._logs = ContainerLogs(pods=pods, runtime=runtime, clock=clock, log_dir=log_dir)
        self._usage = Usage(node_name=node_name, pods=pods, runtime=runtime, node=stats, clock=clock)
        self._strangers = 0
        self.port = port  # the real one once ready, when 0 was asked for

    async def run(self, ready: asyncio.Event) -> None:
        """Listen until cancelled; open conversations then end."""
        async with TaskScope("kubelet-server") as scope:

            def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                if writer.get_extra_info("peercert"):
                    scope.spawn(serve_connection(reader, writer, self.handle), name="connection")
                elif self._strangers < STRANGERS:
                    scope.spawn(self._serve_stranger(reader, writer), name="stranger")
                else:
                    writer.transport.abort()

            server = await asyncio.start_server(
                connected, self._address, self._port, ssl=self._tls, limit=_READ_LIMIT, ssl_handshake_timeout=_HANDSHAKE_SECONDS
            )
            self.port = server.sockets[0].getsockname()[1]
            try:
                ready.set()
                await asyncio.Event().wait()
            finally:
                server.close()

    async def _serve_stranger(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._strangers += 1
        try:
            await serve_connection(reader, writer, self.handle)
        finally:
            self._strangers -= 1

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caller: Caller) -> None:
        """Answer one connection that came some other way, from a caller who has proved who they are."""
        await serve_connection(reader, writer, self.handle, caller)

    async def handle(self, request: Request) -> Reply | None:
        """One request: who, may they, what."""
        caller = await self._caller(request)
        if caller is None:
            return Reply(401, b"Unauthorized")
        verb, subresources = question(request.method, request.path)
        for subresource in subresources:
            if await self._gate.allows(caller, verb, subresource, request.path):
                break
        else:
            shown = f"Forbidden (user={caller.name}, verb={verb}, resource=nodes, subresource(s)=[{' '.join(subresources)}])\n"
            return Reply(403, shown.encode())
        try:
            return await self._route(request)
        except RuntimeDown as error:
            return Reply(500, str(error).encode())

    async def _caller(self, request: Request) -> Caller | None:
        if request.certificate is not None:
            return request.certificate
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return await self._gate.authenticate(token.strip()) if scheme.lower() == "bearer" and token.strip() else None

    async def _route(self, request: Request) -> Reply | None:
        parts = [part for part in request.path.split("/") if part]
        head = parts[0] if parts else ""
        if head in ("exec", "attach", "run") and len(parts) in (4, 5):
            uid = parts[3] if len(parts) == 5 else ""
            return await self._container(request, head, self._pods.find(parts[1], parts[2], uid), parts[-1])
        if head == "portForward" and len(parts) in (3, 4):
            return await self._port_forward(request, self._pods.find(parts[1], parts[2], parts[3] if len(parts) == 4 else ""))
        if request.method not in ("GET", "HEAD"):
            return Reply(405, b"Method Not Allowed", headers={"Allow": "GET"})
        if head == "containerLogs" and len(parts) == 4:
            return await self._logs.serve(request, *parts[1:])
        if head == "logs":
            return await asyncio.to_thread(host_log, self._host_logs, parts[1:])
        return await self._page(request, "/".join(parts))

    async def _page(self, request: Request, path: str) -> Reply:
        match path:
            case "healthz" | "healthz/ping" | "healthz/syncloop":
                good = self._healthy is None or await self._healthy()
                return Reply(200, b"ok") if good else Reply(500, b"healthz check failed")
            case "pods":
                return _pod_list(self._pods.pods())
            case "runningpods":
                running = {info.pod.uid for info in await self._runtime.containers() if info.state == "running"}
                return _pod_list([pod for pod in self._pods.pods() if pod.ref.uid in running])
            case "metrics":
                return Reply(200, metrics.render(), metrics.CONTENT_TYPE)
            case "metrics/resource":
                return Reply(200, (await self._usage.resource_metrics()).encode(), metrics.CONTENT_TYPE)
            case "metrics/cadvisor":
                return Reply(200, (await self._usage.container_metrics()).encode(), metrics.CONTENT_TYPE)
            case "metrics/probes":
                return Reply(200, b"", metrics.CONTENT_TYPE)
            case "stats" | "stats/summary":
                return Reply(200, orjson.dumps(await self._usage.summary(only_cpu_and_memory=request.flag("only_cpu_and_memory"))), _JSON)
            case "configz":
                return Reply(200, orjson.dumps({"kubeletconfig": {"port": self.port, "address": self._address}}), _JSON)
        return Reply(404, b"404 page not found\n")

    async def _container(self, request: Request, verb: str, pod: KnownPod | None, container: str) -> Reply | None:
        if pod is None:
            return Reply(404, b"pod does not exist")
        found = [info for info in await self._runtime.containers(pod.ref.uid) if info.name == container and info.state == "running"]
        if not found:
            return Reply(500, f'container not found ("{container}")'.encode())
        container_id = found[0].id
        argv = list(request.query.get("command", ()))
        if verb == "run":
            return await self._run(container_id, request.param("cmd").split())
        if verb == "attach":

            async def attach(wanted: Wanted) -> Process:
                return await self._runtime.attach(container_id, stdin=wanted.stdin, stdout=wanted.stdout, stderr=wanted.stderr)

            return await remotecommand.serve(request, attach, verb="attaching to container", tell_code=False)

        async def execute(wanted: Wanted) -> Process:
            return await self._runtime.exec(
                container_id, argv, tty=wanted.tty, stdin=wanted.stdin, stdout=wanted.stdout, stderr=wanted.stderr
            )

        return await remotecommand.serve(request, execute, verb="executing command in container")

    async def _run(self, container_id: str, argv: Sequence[str]) -> Reply:
        try:
            code, output = await self._runtime.run_command(container_id, argv, timeout=60.0)
        except (RuntimeFailure, TimeoutError) as error:
            return Reply(500, str(error).encode())
        return Reply(200 if code == 0 else 500, output)

    async def _port_forward(self, request: Request, pod: KnownPod | None) -> Reply | None:
        if pod is None:
            return Reply(404, b"pod does not exist")
        if pod.sandbox is None:
            return Reply(500, b"unable to do port forwarding: the pod has no network yet")
        return await portforward.serve(request, pod)


def _pod_list(pods: Sequence[KnownPod]) -> Reply:
    items = [pod.obj for pod in pods]
    return Reply(200, orjson.dumps({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}), _JSON)
