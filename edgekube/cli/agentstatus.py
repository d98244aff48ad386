"""What `edgekube status` says of an agent: whether it has joined, which server answers it, and whether its node is ready."""

import asyncio
import json
import ssl
from collections.abc import Callable

from edgekube.agent import identity as identities
from edgekube.agent.authority import Unreachable, fetch
from edgekube.agent.dial import parse_address
from edgekube.agent.identity import Identity
from edgekube.agent.refusal import IdentityDamaged
from edgekube.agent.servers import Servers
from edgekube.app.paths import paths_of
from edgekube.cli.main import Failure
from edgekube.config import Settings
from edgekube.lib.tlsclock import ignore_time

_ASK_SECONDS = 3.0
AWAY = "no server answers"

NodeState = Callable[[str, int, str], tuple[bool, str]]


def agent_state(settings: Settings, node_state: NodeState) -> tuple[bool, str]:
    """(is it ready, what there is to say). It asks as the node itself, over a connection of its own."""
    try:
        identity = identities.load(paths_of(settings).agent)
    except PermissionError:
        raise Failure(f"{paths_of(settings).agent} is for root only: try sudo") from None
    except IdentityDamaged as error:
        return False, str(error)
    if identity is None or not identities.joined(identity):
        return False, "this machine has not joined a cluster yet"
    server, status, text = asyncio.run(_ask(settings, identity))
    if not server:
        return False, f"node: {identity.name}\n{AWAY}: {text}\nits pods keep running"
    if status in (401, 403):
        return False, f"node: {identity.name}\nserver: {server} does not accept this node: {_message(text)}"
    ready, line = node_state(identity.name, status, text)
    return ready, f"node: {identity.name}\nserver: {server}\n{line}"


async def _ask(settings: Settings, identity: Identity) -> tuple[str, int, str]:
    """(server, status, body) of the first that answers; "" and why, if none does."""
    known = Servers([parse_address(each) for each in settings.server or identity.servers], identity.folder / "servers.json")
    try:
        context = ignore_time(ssl.create_default_context(cafile=str(identity.ca)))  # its clock may be wrong
        context.load_cert_chain(identity.client, identity.key)
    except OSError as error:
        return "", 0, f"the credentials in {identity.folder} can not be used: {error}"
    troubles = []
    for address in known.candidates():
        server = f"https://{address}"
        try:
            status, _, body = await fetch(server, f"/api/v1/nodes/{identity.name}", context=context, timeout=_ASK_SECONDS)
        except Unreachable as error:
            troubles.append(f"{server}: {error}")
            continue
        return server, status, body.decode(errors="replace")
    return "", 0, "; ".join(troubles) or "none is known"


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text.strip()
