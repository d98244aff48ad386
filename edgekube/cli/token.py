"""`edgekube token`: what lets machines join. A token is a Secret of the cluster (api/bootstraptokens.py): make, list, delete."""

import re
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Sequence
from datetime import datetime, timedelta

from edgekube.api import bootstraptokens
from edgekube.api.bootstraptokens import NAMESPACE, PREFIX, TYPE, USAGES, BootstrapToken
from edgekube.api.kinds.printing import human_duration
from edgekube.api.validate import subdomain
from edgekube.app.timekeeper import make_clock
from edgekube.cli.localapi import call
from edgekube.cli.main import Failure, add_settings
from edgekube.cli.tables import show
from edgekube.config import Settings
from edgekube.lib.clock import rfc3339

_SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
_SETTINGS = ("data-dir", "run-dir", "https-port")
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a token and print it", argument_default=SUPPRESS)
    add_settings(create, only=_SETTINGS)
    create.add_argument("--ttl", default="24h", metavar="DURATION", help="how long it is good, such as 2h30m; 0 is for ever (default 24h)")
    uses = "how many machines it lets in (default: any number; with --node-name one), and what it is for: signing, authentication"
    create.add_argument("--usages", default="", metavar="LIST", help=uses)
    create.add_argument("--description", default="", metavar="TEXT", help="what it is for, for people")
    create.add_argument("--node-name", dest="bound", default="", metavar="NAME", help="good for this node only, which it may replace")
    create.add_argument("--print-join-command", action="store_true", default=False, help="print the whole command for the other machine")
    add_settings(actions.add_parser("list", help="list the tokens", argument_default=SUPPRESS), only=_SETTINGS)
    delete = actions.add_parser("delete", help="revoke tokens", argument_default=SUPPRESS)
    add_settings(delete, only=_SETTINGS)
    delete.add_argument("names", nargs="+", metavar="ID|TOKEN", help="the six characters of its id, or a token")


def main(settings: Settings, arguments: Namespace) -> int:
    """Do what `action` says."""
    match arguments.action:
        case "create":
            return _create(settings, arguments)
        case "delete":
            return _delete(settings, arguments.names)
    return _list(settings)


def _create(settings: Settings, arguments: Namespace) -> int:
    bound = arguments.bound.lower()
    if bound and subdomain(bound):
        raise Failure(f"--node-name: {arguments.bound!r} is no name for a node")
    uses, usages = parse_usages(arguments.usages)
    bearer = bootstraptokens.new_bearer()
    secret = bootstraptokens.secret_of(
        bearer,
        now=make_clock(settings.data_dir, settings.test_clock_offset_file).now(),
        life=parse_duration(arguments.ttl),
        usages=usages,
        uses=uses or (1 if bound else 0),
        node=bound,
        description=arguments.description,
    )
    call(settings, _SECRETS, method="POST", body=secret)
    token = bootstraptokens.join_token((settings.data_dir / "pki" / "ca.crt").read_bytes(), bearer)
    if not arguments.print_join_command:
        print(token)
        return 0
    name = f" --node-name {bound}" if bound else ""
    print(f"edgekube agent --server {_address(settings)} --token {token}{name}")
    return 0


def _address(settings: Settings) -> str:
    """Where the server says that it is reached from other machines."""
    found = call(settings, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")
    address, port = found["endpoints"][0]["addresses"][0], found["ports"][0]["port"]
    return f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"


def _list(settings: Settings) -> int:
    now = make_clock(settings.data_dir, settings.test_clock_offset_file).now()
    items = call(settings, f"{_SECRETS}?fieldSelector=type%3D{TYPE.replace('/', '%2F')}")["items"]
    tokens = [token for token in (bootstraptokens.read(secret) for secret in items) if token is not None]
    show([("ID", "TTL", "EXPIRES", "USES LEFT", "NODE", "DESCRIPTION"), *(row(token, now) for token in tokens)])
    return 0


def row(token: BootstrapToken, now: datetime) -> tuple[str, ...]:
    """What `token list` shows of a token."""
    left = "<unlimited>" if token.left is None else str(token.left)
    if token.expires is None:
        life, end = "<forever>", "<never>"
    else:
        life = "<expired>" if token.expired(now) else human_duration((token.expires - now).total_seconds())
        end = rfc3339(token.expires)
    return (token.id, life, end, left, token.node or "<any>", token.description or "<none>")


def _delete(settings: Settings, names: Sequence[str]) -> int:
    for name in names:
        token_id = id_of(name)
        if not call(settings, f"{_SECRETS}/{PREFIX}{token_id}", method="DELETE", missing=True):
            raise Failure(f"token {token_id} does not exist")
        print(f'token "{token_id}" deleted')
    return 0


def id_of(text: str) -> str:
    """The id in what a person calls a token: its id, the token with or without the authority. Raises Failure."""
    found = re.fullmatch(r"(?:EK1[0-9a-f]{64}::)?([a-z0-9]{6})(?:\.[a-z0-9]{16})?", text.strip())
    if found is None:
        raise Failure(f"{text[:12]!r} is neither a token nor the six characters of a token's id")
    return found[1]


def parse_duration(text: str) -> timedelta | None:
    """24h, 1h30m, 7d; 0 is for ever: None. Raises Failure."""
    if text == "0":
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise Failure(f"--ttl: {text!r} is no duration such as 24h, 1h30m or 7d")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds < 1e10:
        raise Failure(f"--ttl: {text!r} is out of range; 0 is for ever")
    return timedelta(seconds=seconds)


def parse_usages(text: str) -> tuple[int, Sequence[str]]:
    """(how many machines, 0 for any number; kubeadm's usages) from a list such as `1` or `signing,authentication,3`. Raises Failure."""
    uses, words = 0, []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if part.isascii() and part.isdigit() and 0 < int(part) <= 10_000 and not uses:
            uses = int(part)
        elif part in USAGES:
            words.append(part)
        else:
            raise Failure(f"--usages: {part!r} is neither a number of machines nor one of {', '.join(USAGES)}")
    return uses, tuple(dict.fromkeys(words)) or USAGES
