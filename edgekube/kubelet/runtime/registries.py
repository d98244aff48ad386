"""registries.yaml: mirrors, rewrites, credentials and TLS of registries, with the keys that k3s users know.

    mirrors:                                  configs:
      docker.io:                                "mirror.lan:5000":
        endpoint: [https://mirror.lan:5000]       auth: {username: u, password: p}       (or auth: base64, or identity_token)
        rewrite: {"^library/(.*)": "hub/$1"}      tls: {ca_file: /ca.pem, cert_file: .., key_file: .., insecure_skip_verify: false}
      "*": ...

Of an image the mirrors are asked first, in order, under the rewritten name, then its own registry under its own name. The first rewrite
that matches counts. Loopback registries and http:// endpoints need no TLS.
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HUB = ("docker.io", "registry-1.docker.io", "index.docker.io")


class RegistriesError(Exception):
    """The file can not be used; the message has every problem."""


@dataclass(frozen=True, slots=True)
class Auth:
    username: str = ""
    password: str = ""
    token: str = ""

    def __bool__(self) -> bool:
        return bool(self.username or self.password or self.token)


@dataclass(frozen=True, slots=True)
class Tls:
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class Mirror:
    endpoints: Sequence[str]
    rewrites: Sequence[tuple[re.Pattern[str], str]] = ()


@dataclass(frozen=True, slots=True)
class Registries:
    """What the file says; nothing where there is none."""

    mirrors: Mapping[str, Mirror] = field(default_factory=dict)
    auths: Mapping[str, Auth] = field(default_factory=dict)
    tls: Mapping[str, Tls] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place to ask: `reference` is the image's name there. `insecure`: its certificate is not checked, or it has none."""

    host: str
    reference: str
    auth: Auth = Auth()
    insecure: bool = False
    mirror: bool = False


def plan_pull(registries: Registries, name: str) -> Sequence[Endpoint]:
    """Where to ask for the whole name `name`, in this order."""
    host, _, path = name.partition("/")
    repository, separator, version = _divided(path)
    mirror = registries.mirrors.get(host) or registries.mirrors.get("*")
    found = []
    for url in mirror.endpoints if mirror else ():
        parts = urlsplit(url)
        prefix = "".join(f"{part}/" for part in parts.path.split("/") if part not in ("", "v2"))
        rewritten = _rewritten(mirror.rewrites if mirror else (), repository)
        found.append(
            _endpoint(registries, parts.netloc, f"{prefix}{rewritten}{separator}{version}", plain=parts.scheme == "http", mirror=True)
        )
    own = _endpoint(registries, host, path, plain=False, mirror=False)
    if all(one.reference != own.reference for one in found):
        found.append(own)
    return found


def _endpoint(registries: Registries, host: str, path: str, *, plain: bool, mirror: bool) -> Endpoint:
    aliases = HUB if host in HUB else (host,)
    auth = next((registries.auths[one] for one in aliases if one in registries.auths), Auth())
    tls = next((registries.tls[one] for one in aliases if one in registries.tls), None)
    insecure = plain or (_is_loopback(host) if tls is None else tls.insecure)
    return Endpoint(host, f"{'docker.io' if host in HUB else host}/{path}", auth, insecure, mirror)


def _divided(path: str) -> tuple[str, str, str]:
    """Repository, `:` or `@`, tag or digest."""
    if "@" in path:
        return path.partition("@")
    repository, separator, tag = path.rpartition(":")
    return repository, separator, tag


def _rewritten(rewrites: Sequence[tuple[re.Pattern[str], str]], repository: str) -> str:
    for pattern, replacement in rewrites:
        if pattern.search(repository):
            return pattern.sub(replacement, repository)
    return repository


def _is_loopback(host: str) -> bool:
    try:
        bare = urlsplit(f"//{host}").hostname or ""
        return bare == "localhost" or ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


# reading


def read(path: Path) -> Registries:
    """What the file says. Raises RegistriesError."""
    import yaml

    try:
        found = yaml.safe_load(path.read_bytes())
    except FileNotFoundError:
        return Registries()
    except OSError as error:
        raise RegistriesError(f"{path} can not be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise RegistriesError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    return parse({} if found is None else found, str(path))


def parse(found: Any, name: str) -> Registries:
    """Raises RegistriesError with all problems."""
    problems: list[str] = []
    top = _mapping(found, "the file", ("mirrors", "configs"), problems)
    mirrors = {str(host): _mirror(one, f"mirrors.{host}", problems) for host, one in _entries(top, "mirrors", problems)}
    auths, tls = {}, {}
    for host, one in _entries(top, "configs", problems):
        where = f"configs.{host}"
        parts = _mapping(one, where, ("auth", "tls"), problems)
        if "://" in str(host):
            problems.append(f"{where}: a registry is named by its host[:port], without a scheme")
        if parts.get("auth") is not None:
            auths[str(host)] = _auth(parts["auth"], f"{where}.auth", problems)
        if parts.get("tls") is not None:
            tls[str(host)] = _tls(parts["tls"], f"{where}.tls", problems)
    if problems:
        raise RegistriesError(f"{name}: {'; '.join(problems)}")
    return Registries(mirrors, auths, tls)


def _mapping(found: Any, where: str, keys: Sequence[str], problems: list[str]) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        problems.append(f"{where} is no mapping of {', '.join(keys)}")
        return {}
    problems += [f"{where}: unknown key {key!r} (known: {', '.join(keys)})" for key in found if key not in keys]
    return found


def _entries(top: Mapping[str, Any], key: str, problems: list[str]) -> Iterator[tuple[Any, Any]]:
    found = top.get(key)
    if found is not None and not isinstance(found, dict):
        problems.append(f"{key} is no mapping of registries")
    yield from (found or {}).items() if isinstance(found, dict) else ()


def _mirror(found: Any, where: str, problems: list[str]) -> Mirror:
    parts = _mapping(found if found is not None else {}, where, ("endpoint", "rewrite"), problems)
    endpoints = parts.get("endpoint") or ()
    endpoints = [endpoints] if isinstance(endpoints, str) else endpoints
    if not isinstance(endpoints, list | tuple):
        problems.append(f"{where}.endpoint is no list of URLs")
        endpoints = ()
    good = [whole for url in endpoints if (whole := _url(url, where, problems))]
    rewrites = parts.get("rewrite") or {}
    if not isinstance(rewrites, dict):
        problems.append(f"{where}.rewrite is no mapping of patterns")
        rewrites = {}
    return Mirror(tuple(good), tuple(_rewrites(rewrites, f"{where}.rewrite", problems)))


def _url(found: Any, where: str, problems: list[str]) -> str:
    """With its scheme; "" for none."""
    whole = str(found) if "://" in str(found) else f"https://{found}"
    try:
        parsed = urlsplit(whole)
        good = parsed.scheme in ("http", "https") and bool(parsed.hostname) and parsed.port != 0
    except ValueError:
        good = False
    if not good:
        problems.append(f"{where}.endpoint: {found!r} is no URL such as https://mirror.lan:5000")
    return whole if good else ""


def _rewrites(found: Mapping[Any, Any], where: str, problems: list[str]) -> Iterator[tuple[re.Pattern[str], str]]:
    for text, replacement in found.items():
        try:
            pattern = re.compile(str(text))
            template = re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda match: rf"\g<{match[1] or match[2]}>", str(replacement).replace("\\", r"\\"))
            pattern.sub(template, "")
            re.compile(f"(?:{text})|").sub(template, "")  # also names a group that the pattern lacks
        except (re.error, IndexError) as error:
            problems.append(f"{where}: {text!r} -> {replacement!r}: {error}")
        else:
            yield pattern, template


def _auth(found: Any, where: str, problems: list[str]) -> Auth:
    parts = _texts(found, where, ("username", "password", "auth", "identity_token", "token"), problems)
    username, password = parts.get("username", ""), parts.get("password", "")
    if parts.get("auth"):
        try:
            username, _, password = base64.b64decode(parts["auth"], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            problems.append(f"{where}.auth is not the base64 of username:password")
    return Auth(username, password, parts.get("identity_token") or parts.get("token", ""))


def _tls(found: Any, where: str, problems: list[str]) -> Tls:
    keys = ("ca_file", "cert_file", "key_file", "insecure_skip_verify")
    parts = dict(_mapping(found, where, keys, problems))
    insecure = parts.pop("insecure_skip_verify", None) or False
    if not isinstance(insecure, bool):
        problems.append(f"{where}.insecure_skip_verify is neither true nor false")
    texts = _texts(parts, where, keys, problems)
    for key, value in texts.items():
        if value and not Path(value).is_file():
            problems.append(f"{where}.{key}: there is no file {value}")
    if bool(texts.get("cert_file")) != bool(texts.get("key_file")):
        problems.append(f"{where}: cert_file and key_file go together")
    return Tls(texts.get("ca_file", ""), texts.get("cert_file", ""), texts.get("key_file", ""), bool(insecure))


def _texts(found: Any, where: str, keys: Sequence[str], problems: list[str]) -> dict[str, str]:
    parts = _mapping(found, where, keys, problems)
    problems += [f"{where}.{key} is no text" for key, value in parts.items() if value is not None and not isinstance(value, str)]
    return {key: value for key, value in parts.items() if isinstance(value, str)}
