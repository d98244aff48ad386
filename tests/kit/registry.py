"""A container registry for tests: one image, plain HTTP, basic authentication if asked for. Speaks just enough of the distribution API."""

import asyncio
import base64
import hashlib
import json
import ssl
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass
class Registry:
    """What it has and what it was asked."""

    address: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    credentials: str = ""
    asked: list[str] = field(default_factory=list)

    def add(self, name: str, tag: str, archive: Path) -> None:
        """The image of a docker-archive, as `address/name:tag`."""
        with tarfile.open(archive) as tar:

            def read(member: str) -> bytes:
                file = tar.extractfile(member)
                assert file is not None
                return file.read()

            entry = json.loads(read("manifest.json"))[0]
            config, layers = read(entry["Config"]), [read(layer) for layer in entry["Layers"]]
        for blob in (config, *layers):
            self.blobs[_digest(blob)] = blob
        manifest = json.dumps({
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config), "digest": _digest(config)},
            "layers": [
                {"mediaType": "application/vnd.docker.image.rootfs.diff.tar", "size": len(layer), "digest": _digest(layer)} for layer in layers
            ],
        }).encode()  # fmt: skip
        self.manifests[f"{name}:{tag}"] = self.manifests[f"{name}:{_digest(manifest)}"] = manifest

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if self.credentials and request.headers.get("Authorization") != "Basic " + base64.b64encode(self.credentials.encode()).decode():
            return web.json_response(
                {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]},
                status=401,
                headers={"WWW-Authenticate": 'Basic realm="test"'},
            )
        parts = request.path.removeprefix("/v2/").rsplit("/", 2)
        if len(parts) == 3 and parts[1] == "manifests" and (found := self.manifests.get(f"{parts[0]}:{parts[2]}")):
            return web.Response(body=found, content_type=_MANIFEST, headers={"Docker-Content-Digest": _digest(found)})
        if len(parts) == 3 and parts[1] == "blobs" and parts[2] in self.blobs:
            return web.Response(body=self.blobs[parts[2]], content_type="application/octet-stream")
        if request.path == "/v2/":
            return web.json_response({})
        return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}, status=404)


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@asynccontextmanager
async def registry(tls: ssl.SSLContext | None = None) -> AsyncIterator[Registry]:
    """One that listens on the loopback."""
    found = Registry()
    application = web.Application()
    application.router.add_get("/{tail:.*}", found.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        found.address = f"127.0.0.1:{runner.addresses[0][1]}"
        yield found
    finally:
        await runner.cleanup()
        await asyncio.sleep(0)
