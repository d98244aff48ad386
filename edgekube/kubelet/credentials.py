"""Registry credentials from pull secrets (dockerconfigjson, dockercfg). Pure.

Upstream: pkg/credentialprovider/keyring.go. The most specific match wins; hosts may hold globs per label and a path prefix.
"""

import base64
import binascii
import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

from edgekube.api.types import Obj

_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True, slots=True)
class Credential:
    username: str = ""
    password: str = ""


def entries(secret: Obj) -> dict[str, Credential]:
    """Registry -> credential of one pull secret; a secret that cannot be read has none."""
    data = secret.get("data") or {}
    try:
        if ".dockerconfigjson" in data:
            return _parsed(orjson.loads(base64.b64decode(data[".dockerconfigjson"])).get("auths") or {})
        if ".dockercfg" in data:
            return _parsed(orjson.loads(base64.b64decode(data[".dockercfg"])))
    except (ValueError, AttributeError, TypeError):
        return {}
    return {}


def _parsed(auths: Mapping[str, Mapping[str, Any]]) -> dict[str, Credential]:
    found: dict[str, Credential] = {}
    for registry, entry in auths.items():
        name, password = entry.get("username") or "", entry.get("password") or ""
        if entry.get("auth"):
            try:
                name, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                continue
        found[registry] = Credential(name, password.rstrip("\x00"))
    return found


def _split(registry: str) -> tuple[str, str]:
    parts = urlsplit(registry if "://" in registry else f"https://{registry}")
    path = parts.path.strip("/")
    return parts.netloc, "" if path in ("v1", "v2") else path.removeprefix("v1/").removeprefix("v2/")


def _matches(pattern: str, host: str, path: str) -> bool:
    wanted, prefix = _split(pattern)
    if host in _HUB and wanted in _HUB:
        return path.startswith(prefix)
    ours, theirs = wanted.split("."), host.split(".")
    if len(ours) != len(theirs) or not all(fnmatch.fnmatchcase(b, a) for a, b in zip(ours, theirs, strict=True)):
        return False
    return path == prefix or path.startswith(prefix.rstrip("/") + "/") if prefix else True


def lookup(image: str, secrets: Iterable[Obj]) -> list[Credential]:
    """Credentials to try for an image reference, the most specific first."""
    first, _, rest = image.partition("/")
    if not rest or not ("." in first or ":" in first or first == "localhost"):
        host, path = "docker.io", image if "/" in image else f"library/{image}"
    else:
        host, path = first, rest
    found = [(registry, one) for secret in secrets for registry, one in entries(secret).items() if _matches(registry, host, path)]
    found.sort(key=lambda pair: len(_split(pair[0])[1]) * 1000 + len(pair[0]), reverse=True)
    return [one for _, one in found]
