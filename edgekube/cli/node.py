"""`edgekube node`: the machines that have joined, and how to throw one out for good."""

from argparse import SUPPRESS, ArgumentParser, Namespace

from edgekube.api import nodeidentity
from edgekube.api.nodeidentity import NAMESPACE, TYPE, secret_name
from edgekube.cli.localapi import call
from edgekube.cli.main import Failure, add_settings
from edgekube.cli.tables import show
from edgekube.config import Settings

_SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
_NODES = "/api/v1/nodes"
_SETTINGS = ("data-dir", "run-dir", "https-port")


def arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    revoke = actions.add_parser("revoke", help="cut a node off, delete it, and never trust its key again", argument_default=SUPPRESS)
    add_settings(revoke, only=_SETTINGS)
    revoke.add_argument("names", nargs="+", metavar="NAME")
    add_settings(actions.add_parser("list", help="list the nodes and their keys", argument_default=SUPPRESS), only=_SETTINGS)


def main(settings: Settings, arguments: Namespace) -> int:
    """Do what `action` says."""
    if arguments.action == "list":
        return _list(settings)
    for name in arguments.names:
        _revoke(settings, name)
    return 0


def _revoke(settings: Settings, name: str) -> None:
    """The key first: a node that is still trusted would register again. Run again after a crash, it does what is left to do."""
    path = f"{_SECRETS}/{secret_name(name)}"
    secret = call(settings, path, missing=True)
    if not secret:
        raise Failure(f"node {name} has no key here: it has not joined with a token (the server's own node is the server itself)")
    if not nodeidentity.read(secret).revoked:
        call(settings, path, method="PUT", body=nodeidentity.revoked(secret))
    call(settings, f"{_NODES}/{name}", method="DELETE", missing=True)
    print(f'node "{name}" revoked')


def _list(settings: Settings) -> int:
    secrets = call(settings, f"{_SECRETS}?fieldSelector=type%3D{TYPE.replace('/', '%2F')}")["items"]
    pins = {pin.node: pin for pin in map(nodeidentity.read, secrets)}
    nodes = {node["metadata"]["name"]: node for node in call(settings, _NODES)["items"]}
    rows = [("NAME", "READY", "KEY", "TRUST")]
    for name in sorted({*pins, *nodes}):
        pin = pins.get(name)
        trust = "own" if pin is None else "revoked" if pin.revoked else "trusted"
        rows.append((name, _ready(nodes.get(name)), pin.key[:12] if pin else "<none>", trust))
    show(rows)
    return 0


def _ready(node: dict[str, object] | None) -> str:
    if node is None:
        return "<deleted>"
    status = node.get("status")
    conditions = status.get("conditions") or () if isinstance(status, dict) else ()
    return next((str(one["status"]) for one in conditions if one["type"] == "Ready"), "Unknown")
