"""Reaching a kubelet: by the node's address, with TLS both ways, and only if the certificate names the node."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgekube.api import catalog
from edgekube.apiserver.credentials import Pki, ensure_pki
from edgekube.apiserver.dialer import ClientTls, DirectDialer, address_of
from edgekube.errors import ApiError, NotFound
from tests.unit.apiserver.world import World


@contextlib.asynccontextmanager
async def kubelet(pki: Pki) -> AsyncIterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki.ca))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(str(pki.kubelet))

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        certificate = writer.get_extra_info("ssl_object").getpeercert()
        names = [value for part in certificate["subject"] for key, value in part if key == "commonName"]
        writer.write(f"hello {names[0]}\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


def make(folder: Path, node_name: str = "pi") -> Pki:
    return ensure_pki(folder / "pki", node_name=node_name, addresses=["127.0.0.1"], now=datetime.now(UTC))


async def node(world: World, port: int, name: str = "pi") -> None:
    endpoints = {"kubeletEndpoint": {"Port": port}}
    addresses = [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": "127.0.0.1"}]
    await world.put(catalog.NODE, name, status={"addresses": addresses, "daemonEndpoints": endpoints})


async def test_dial(tmp_path: Path) -> None:
    pki, world = make(tmp_path), World()
    dialer = DirectDialer(objects=world.objects, tls=ClientTls(ca=pki.ca, credential=pki.apiserver_kubelet_client))
    with pytest.raises(NotFound, match='nodes "pi" not found'):
        await dialer.dial("pi")
    async with kubelet(pki) as port:
        await node(world, port)
        reader, writer = await dialer.dial("pi")
        assert await reader.readline() == b"hello kube-apiserver-kubelet-client\n"
        writer.close()


async def test_a_certificate_of_another_node_is_refused(tmp_path: Path) -> None:
    pki, world = make(tmp_path), World()
    dialer = DirectDialer(objects=world.objects, tls=ClientTls(ca=pki.ca, credential=pki.apiserver_kubelet_client))
    async with kubelet(pki) as port:
        await node(world, port, "other")
        with pytest.raises(ApiError, match="error dialing backend: tls:"):
            await dialer.dial("other")


def test_address_of_prefers_the_internal_one() -> None:
    addresses = [{"type": "Hostname", "address": "h"}, {"type": "ExternalIP", "address": "e"}, {"type": "InternalIP", "address": "i"}]
    assert address_of({"status": {"addresses": addresses}}) == "i"
    with pytest.raises(ApiError, match='no preferred addresses found for node "pi"'):
        address_of({"metadata": {"name": "pi"}})
