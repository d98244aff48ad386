"""Pulling: one endpoint of an image after the other, as registries.yaml has them, until one gives it.

Podman knows no rewrites and no credentials per mirror, so each endpoint is a pull of its own under the name the image has there; then it
gets its own name and loses the mirror's. Certificates go where podman looks for them, below its home. The file is looked at before each
pull: a change counts from the next one on; one that is broken is told once, and the one before it holds.

Reads registries.yaml; writes <run-dir>/podman/home/.config/containers/certs.d. A credential of the caller's (imagePullSecrets) is for the
image's own registry and wins there; no mirror ever sees it.
"""

import asyncio
import base64
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from edgekube.kubelet.runtime.names import as_query
from edgekube.kubelet.runtime.protocol import RuntimeFailure
from edgekube.kubelet.runtime.registries import Auth, Endpoint, Registries, RegistriesError, Tls, plan_pull, read
from edgekube.kubelet.runtime.rest import Rest, RestError
from edgekube.lib.files import remove_tree

log = logging.getLogger(__name__)

_SILENCE_SECONDS = 120.0
_DIAL_SECONDS = 3.0
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class Puller:
    """See the module. `certs`: podman's folder of certificates, one folder for each host."""

    def __init__(self, rest: Rest, *, file: Path | None, certs: Path) -> None:
        self._rest, self._file, self._certs = rest, file, certs
        self._stamp: tuple[int, int, int] | None = None
        self._known = Registries()
        self._written: Mapping[str, Tls] = {}
        self.trouble = ""  # why the newest registries.yaml does not count

    async def pull(self, name: str, *, username: str = "", password: str = "") -> None:
        """Get the image with the whole name `name`. Raises RuntimeFailure(ErrImagePull) that names every endpoint and its reason."""
        await asyncio.to_thread(self._refresh)
        own = Auth(username, password)
        failures: list[tuple[Endpoint, str]] = []
        for endpoint in plan_pull(self._known, name):
            asked = replace(endpoint, auth=own) if own and not endpoint.mirror else endpoint
            why = await self._try(asked)
            if not why:
                await self._rename(asked.reference, name)
                return
            failures.append((asked, why))
        raise RuntimeFailure("ErrImagePull", self._words(name, failures))

    async def plan(self, name: str) -> Sequence[Endpoint]:
        """Where `pull` would ask."""
        await asyncio.to_thread(self._refresh)
        return plan_pull(self._known, name)

    async def _try(self, endpoint: Endpoint) -> str:
        """Why this endpoint did not give it, "" if it did."""
        if endpoint.mirror and (why := await _unreachable(endpoint)):
            return why
        query: dict[str, object] = {"reference": f"docker://{endpoint.reference}", "quiet": True, "policy": "always"}
        if endpoint.insecure:
            query["tlsVerify"] = False
        failure = ""
        try:
            lines = self._rest.lines("POST", "/images/pull", query=query, headers=_auth_header(endpoint.auth), timeout=_SILENCE_SECONDS)
            async for document in lines:
                failure = document.get("error") or failure
        except RestError as error:
            failure = str(error)
        return _plain(failure)

    async def _rename(self, there: str, name: str) -> None:
        """The image came under its name at a mirror. A digest is no name podman gives: it finds the image by it under any of its own."""
        if there == name:
            return
        wanted = _taggable(name)
        try:
            await self._rest.call("POST", f"/images/{there}/tag", query=as_query(wanted))
            await self._rest.call("POST", f"/images/{there}/untag", query=as_query(there))
        except RestError as error:
            log.debug("name at a mirror not taken away", extra={"image": there, "error": str(error)})

    def _words(self, name: str, failures: Sequence[tuple[Endpoint, str]]) -> str:
        broken = f"; registries.yaml does not count: {self.trouble}" if self.trouble else ""
        if len(failures) == 1 and not failures[0][0].mirror:
            return f'failed to pull image "{name}": {failures[0][1]}{broken}'
        tried = "; ".join(f"{endpoint.reference}: {why}" for endpoint, why in failures)
        return f'failed to pull image "{name}": tried {len(failures)} endpoints: {tried}{broken}'

    def _refresh(self) -> None:
        if self._file is None:
            return
        with suppress(FileNotFoundError):
            about = self._file.stat()
            stamp = (about.st_mtime_ns, about.st_size, about.st_ino)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._take()
            return
        self._stamp, self._known, self.trouble = None, Registries(), ""
        self._write_certs()

    def _take(self) -> None:
        assert self._file is not None
        try:
            self._known, self.trouble = read(self._file), ""
        except RegistriesError as error:
            self.trouble = str(error)
            log.warning("registries.yaml refused: what it said before holds", extra={"error": str(error)})
            return
        self._write_certs()
        log.info("registries.yaml read", extra={"mirrors": len(self._known.mirrors), "path": str(self._file)})

    def _write_certs(self) -> None:
        """Links, so that certificates may be renewed in place."""
        wanted = {host: tls for host, tls in self._known.tls.items() if tls.ca_file or tls.cert_file}
        if wanted == self._written and (self._certs.is_dir() or not wanted):
            return
        if self._certs.is_dir():
            remove_tree(self._certs)
        for host, tls in wanted.items():
            folder = self._certs / _safe(host)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, target in (("ca.crt", tls.ca_file), ("client.cert", tls.cert_file), ("client.key", tls.key_file)):
                if target:
                    (folder / name).symlink_to(Path(target).absolute())
        self._written = wanted


def prepare_home(home: Path) -> None:
    """Podman's home: the user's docker credentials stay in sight."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    theirs, ours = Path(os.environ.get("HOME") or "/root") / ".docker", home / ".docker"
    if theirs.is_dir() and not ours.is_symlink():
        ours.symlink_to(theirs)


async def _unreachable(endpoint: Endpoint) -> str:
    """Podman tries a dead registry three times, with pauses: a mirror that does not even answer is found out before. "": it answers."""
    if any(os.environ.get(name) or os.environ.get(name.lower()) for name in _PROXIES):
        return ""
    host, _, port = endpoint.host.rpartition(":")
    host, port = (host, port) if port.isdigit() else (endpoint.host, "80" if endpoint.insecure else "443")
    try:
        async with asyncio.timeout(_DIAL_SECONDS):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.close()
    except TimeoutError:
        return f"no answer within {_DIAL_SECONDS:g} s"
    except OSError as error:
        return f"can not be reached: {(os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)).lower()}"
    return ""


def _safe(host: str) -> str:
    return host.replace("/", "_").lstrip(".")


def _taggable(name: str) -> str:
    repository, at, digest = name.partition("@")
    return f"{repository}:{digest.replace(':', '-')[:32]}" if at else name


def _auth_header(auth: Auth) -> dict[str, str]:
    if not auth:
        return {}
    found = {"identitytoken": auth.token} if auth.token else {"username": auth.username, "password": auth.password}
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(found).encode()).decode()}


def _plain(failure: str) -> str:
    """Without podman's own preface."""
    return re.sub(r"^initializing source docker://\S+: ", "", failure.strip())
