"""An error answer of podman is a failure of the runtime, whoever asked: it ends no process."""

import asyncio

import pytest

from edgekube.kubelet.runtime.images import Images
from edgekube.kubelet.runtime.protocol import RuntimeFailure
from edgekube.kubelet.runtime.rest import Rest
from edgekube.kubelet.runtime.settings import RuntimeConfig

ANSWER = b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
FULL = b'{"message": "retrieving label for image: no space left on device"}'


@pytest.fixture
async def rest(tmp_path):
    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER % (len(FULL), FULL))
        writer.close()

    async with await asyncio.start_unix_server(refuse, tmp_path / "podman.sock"):
        found = Rest(tmp_path / "podman.sock")
        yield found
        found.close()


async def test_images_of_a_full_disk(rest, tmp_path):
    with pytest.raises(RuntimeFailure, match="no space left"):
        await Images(rest, RuntimeConfig(data_dir=tmp_path, run_dir=tmp_path)).list()
