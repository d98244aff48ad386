"""Asking the server on this machine, as the administrator: what the commands that look at or change the cluster have in common."""

import http.client
import json
import ssl
from pathlib import Path
from typing import Any

from edgekube.app.paths import paths_of
from edgekube.cli.main import Failure
from edgekube.config import Settings
from edgekube.lib.tlsclock import ignore_time


def is_agent(settings: Settings) -> bool:
    """Raises Failure for who may not look."""
    try:
        return paths_of(settings).agent.is_dir()
    except PermissionError:
        raise Failure(f"{settings.data_dir} is for root only: try sudo") from None


def no_server(settings: Settings, missing: Path) -> str:
    """Why `missing`, which a server makes, is not on this machine."""
    if is_agent(settings):
        return "this machine is an agent: run this on a server"
    return f"{missing} does not exist yet: the server has not run here"


def ask(settings: Settings, path: str, *, method: str = "GET", body: Any = None, timeout: float = 5) -> tuple[int, str]:
    """(status, body); status 0 and why, if there is no answer. Raises Failure for who may not read the credentials."""
    pki = settings.data_dir / "pki"
    try:
        context = ignore_time(ssl.create_default_context(cafile=str(pki / "ca.crt")))  # the same machine: its clock may be wrong
        context.load_cert_chain(pki / "admin.pem")
    except FileNotFoundError:
        return 0, no_server(settings, pki)
    except PermissionError:
        raise Failure(f"{pki} is for root only: try sudo") from None
    except ssl.SSLError as error:
        return 0, f"the credentials in {pki} can not be used: {error.reason}"
    connection = http.client.HTTPSConnection("127.0.0.1", settings.https_port, timeout=timeout, context=context)
    try:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, f"https://127.0.0.1:{settings.https_port} does not answer: {error}"
    finally:
        connection.close()


def call(
    settings: Settings, path: str, *, method: str = "GET", body: Any = None, missing: bool = False, timeout: float = 5
) -> dict[str, Any]:
    """The object that is the answer; with `missing`, {} where there is none (404). Raises Failure with what the server said."""
    status, text = ask(settings, path, method=method, body=body, timeout=timeout)
    if status == 404 and missing:
        return {}
    if status == 0:
        raise Failure(text)
    try:
        found = json.loads(text)
    except ValueError:
        found = {"message": text}
    if status >= 400 or not isinstance(found, dict):
        raise Failure(str(found.get("message", text)) if isinstance(found, dict) else text)
    return found
