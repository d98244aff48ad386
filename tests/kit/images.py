"""Images made from nothing but the distribution's static busybox: the same bytes every time, no registry, no network.

`archive(path)` writes a docker-archive; `oci_archive(path)` the same image as an OCI archive.
"""

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

APPLETS = (
    "sh", "ls", "cat", "echo", "sleep", "true", "false", "id", "env", "pwd", "hostname", "nc", "httpd", "wget", "ip", "ps", "kill", "mount",
    "head", "tail", "dd", "seq", "yes", "test", "touch", "mkdir", "rm", "printf", "grep", "wc", "nslookup", "ping", "stat", "date", "tty",
    "stty", "trap", "readlink", "sync", "df", "du", "find", "sort", "sed", "awk", "tar", "tr", "cut", "uname", "vi", "md5sum", "sha256sum",
)  # fmt: skip


def busybox() -> Path:
    """The static busybox of this machine."""
    return next(path for path in (Path("/bin/busybox"), Path("/usr/bin/busybox")) if path.exists())


def _add(tar: tarfile.TarFile, name: str, *, kind: bytes = tarfile.REGTYPE, data: bytes = b"", mode: int = 0o755, link: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.linkname = kind, mode, len(data), link
    tar.addfile(info, io.BytesIO(data) if data else None)


def _tar(entries: Sequence[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in entries:
            _add(tar, name, data=data, mode=0o644)
    return out.getvalue()


def _layer(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for folder in ("bin", "etc", "tmp", "home", "home/app", "var", "run", "proc", "sys", "dev", "www"):
            _add(tar, folder, kind=tarfile.DIRTYPE, mode=0o1777 if folder == "tmp" else 0o755)
        _add(tar, "bin/busybox", data=busybox().read_bytes())
        for applet in APPLETS:
            _add(tar, f"bin/{applet}", kind=tarfile.SYMTYPE, link="busybox")
        _add(tar, "etc/passwd", data=b"root:x:0:0:root:/:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n", mode=0o644)
        _add(tar, "etc/group", data=b"root:x:0:\napp:x:1001:\nextra:x:2000:app\n", mode=0o644)
        for name, data in sorted(files.items()):
            _add(tar, name, data=data, mode=0o755)
    return out.getvalue()


def _config(layer: bytes, user: str, entrypoint: Sequence[str], command: Sequence[str], env: Sequence[str], workdir: str) -> dict[str, Any]:
    return {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {
            "Env": ["PATH=/bin", *env],
            "Cmd": list(command),
            "User": user,
            "WorkingDir": workdir,
            **({"Entrypoint": list(entrypoint)} if entrypoint else {}),
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "tests"}],
    }


def archive(
    path: Path,
    *,
    tags: Sequence[str] = ("docker.io/library/busybox:test",),
    user: str = "",
    entrypoint: Sequence[str] = (),
    command: Sequence[str] = ("sh",),
    env: Sequence[str] = (),
    workdir: str = "",
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a docker-archive of busybox and return `path`."""
    layer = _layer(files or {})
    config = json.dumps(_config(layer, user, entrypoint, command, env, workdir), sort_keys=True).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    layer_name = hashlib.sha256(layer).hexdigest() + "/layer.tar"
    manifest = json.dumps([{"Config": name, "RepoTags": list(tags), "Layers": [layer_name]}]).encode()
    path.write_bytes(_tar([(name, config), (layer_name, layer), ("manifest.json", manifest)]))
    return path


def oci_archive(path: Path, *, tag: str = "docker.io/library/busybox:oci") -> Path:
    """Write the same image as an OCI archive and return `path`."""
    layer = _layer({})
    config = json.dumps(_config(layer, "", (), ("sh",), (), ""), sort_keys=True).encode()
    packed = gzip.compress(layer, mtime=0)
    blobs: list[tuple[str, bytes]] = []

    def blob(data: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs.append((f"blobs/sha256/{digest}", data))
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": blob(config, "config.v1+json"), "layers": [blob(packed, "layer.v1.tar+gzip")]}  # fmt: skip
    entry = blob(json.dumps(manifest, sort_keys=True).encode(), "manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": tag}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    path.write_bytes(_tar([("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", index), *blobs]))
    return path
