"""What a server may ask of this node through the connection: its kubelet server, and ports of pods that run here. Nothing else.

The server has proved itself (our authority, the API's own name), so the kubelet server takes it as the API server. A stream to a pod names
the pod, never an address: where that is, only this node's own list of running pods says.
"""

import asyncio
import logging
import os
import ssl
from collections.abc import Awaitable, Callable

from edgekube.lib.mux import Refused, Stream, words
from edgekube.lib.mux.streams import served_by
from edgekube.lib.pump import both_ways
from edgekube.lib.tasks import TaskScope

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 10.0
_KUBELET_LIMIT = 128 * 1024
_POD_LIMIT = 64 * 1024

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Inbound:
    """A component; `accept` is for the Link. `serve` answers the kubelet's HTTP for the API server; `pod_address` knows the address of a
    running pod by namespace and name, "" for any other."""

    name = "inbound"

    def __init__(self, *, serve: Serve, pod_address: Callable[[str, str], str]) -> None:
        self._serve, self._pod_address = serve, pod_address
        self._scope: TaskScope | None = None

    async def run(self, ready: asyncio.Event) -> None:
        async with TaskScope("inbound") as scope:
            self._scope = scope
            ready.set()
            await asyncio.Event().wait()

    def accept(self, stream: Stream) -> asyncio.Protocol:
        """Raises Refused."""
        scope = self._scope
        if scope is None:
            raise Refused("the node is starting")
        if stream.kind == words.KUBELET:

            def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                scope.spawn(self._answer(reader, writer), name="kubelet")

            return served_by(asked, limit=_KUBELET_LIMIT)
        if stream.kind == words.POD:
            host, port, tls = self._target(stream.label)

            def wanted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                scope.spawn(self._to_pod(stream, reader, writer, (host, port, tls)), name="pod")

            return served_by(wanted, limit=_POD_LIMIT)
        raise Refused(f"no streams of kind {stream.kind[:32]} are answered here")

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._serve(reader, writer)

    def _target(self, label: str) -> tuple[str, int, bool]:
        parts = label.split("/")
        namespace, pod, port, scheme = parts if len(parts) == 4 else ("", "", "", "")
        if not port.isdigit() or not 0 < int(port) < 65536 or scheme not in ("http", "https"):
            raise Refused("a pod is named by NAMESPACE/POD/PORT/SCHEME")
        host = self._pod_address(namespace, pod)
        if not host:
            raise Refused(f"pod {namespace}/{pod} does not run on this node")
        return host, int(port), scheme == "https"

    async def _to_pod(
        self, stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: tuple[str, int, bool]
    ) -> None:
        host, port, tls = target
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                there = await asyncio.open_connection(host, port, ssl=_unverified() if tls else None, limit=_POD_LIMIT)
        except TimeoutError:
            stream.reset(f"dial tcp {host}:{port}: i/o timeout")
            return
        except OSError as error:
            why = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
            stream.reset(f"dial tcp {host}:{port}: connect: {why}")
            return
        try:
            await both_ways((reader, writer), there)
        finally:
            there[1].close()
            writer.close()


def _unverified() -> ssl.SSLContext:
    """A pod's certificate is its own affair, as with upstream's proxy."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
