"""`edgekube images`: bring images to this node from files, and list what it has. Talks to the node's own image store; no registry."""

import http.client
import json
import socket
import sys
import time
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from edgekube.cli.main import Failure, add_settings
from edgekube.cli.tables import show
from edgekube.config import Settings
from edgekube.kubelet.runtime.rest import API
from edgekube.kubelet.runtime.settings import RuntimeConfig
from edgekube.lib.pidfile import running

_TIMEOUT_SECONDS = 600
_START_SECONDS = 30


def arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    load = actions.add_parser("import", help="import docker or OCI archives (plain or gzip)", argument_default=SUPPRESS)
    add_settings(load)
    load.add_argument("files", nargs="+", metavar="FILE", help="an archive; - is standard input")
    load.add_argument("--rootfs", metavar="NAME", default="", help="FILE is a plain tar of a file system; make this image from it")
    add_settings(actions.add_parser("list", help="list the node's images", argument_default=SUPPRESS))


def main(settings: Settings, arguments: Namespace) -> int:
    """Import or list."""
    if arguments.action == "list":
        return _list(settings)
    for name in arguments.files:
        with _open(name) as file:
            for image in _import(settings, file, name, arguments.rootfs):
                print(f"imported {image}")
    return 0


def _open(name: str) -> IO[bytes]:
    if name == "-":
        return sys.stdin.buffer
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise Failure(f"{name} can not be read: {(error.strerror or str(error)).lower()}") from None


def _import(settings: Settings, file: IO[bytes], name: str, rootfs: str) -> list[str]:
    if not rootfs:
        return list(_call(settings, "POST", "/images/load", file, name)["Names"])
    _call(settings, "POST", f"/images/import?reference={quote(rootfs, safe='')}", file, name)
    return [rootfs]


def _list(settings: Settings) -> int:
    rows: list[tuple[str, str, str]] = []
    for image in _call(settings, "GET", "/images/json"):
        names = image.get("RepoTags") or image.get("RepoDigests") or ["<none>"]
        rows += [(name, image["Id"][:12], f"{image['Size'] / 1e6:.1f}MB") for name in names]
    show([("IMAGE", "ID", "SIZE"), *sorted(rows)])
    return 0


class _Connection(http.client.HTTPConnection):
    """HTTP over the runtime's unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_SECONDS)
        self.sock.connect(str(self._path))


def _call(settings: Settings, method: str, path: str, body: IO[bytes] | None = None, name: str = "") -> Any:
    config = RuntimeConfig(data_dir=settings.data_dir, run_dir=settings.run_dir, socket=settings.container_runtime_socket)
    _wait_for_runtime(settings, config.service_socket)
    connection = _Connection(config.service_socket)
    try:
        connection.request(method, API + path, body=_chunks(body) if body else None, headers={"Content-Type": "application/x-tar"})
        answer = connection.getresponse()
        text = answer.read()
    except (FileNotFoundError, ConnectionRefusedError):
        raise Failure("the node's container runtime does not answer: start edgekube first") from None
    except PermissionError:
        raise Failure(f"{config.service_socket} is for root only: try sudo") from None
    except OSError as error:
        raise Failure(f"the node's container runtime stopped answering: {error}") from None
    finally:
        connection.close()
    if answer.status >= 400:
        reason = json.loads(text).get("message", text.decode(errors="replace")) if text.startswith(b"{") else text.decode(errors="replace")
        raise Failure(f"{name or path}: {reason}")
    return json.loads(text or b"null")


def _wait_for_runtime(settings: Settings, path: Path) -> None:
    """A server that has just become ready may still be starting its container runtime."""
    deadline = time.monotonic() + _START_SECONDS
    while running(settings.run_dir / "edgekube.pid") and time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(str(path)) == 0:
                return
        time.sleep(0.05)


def _chunks(file: IO[bytes]) -> Iterable[bytes]:
    while data := file.read(1 << 20):
        yield data
