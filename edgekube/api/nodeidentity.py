"""Which key a node is: the pins (Secrets `kube-system/NAME.node-identity`) and the rules of joining under a name. Pure.

A pin says the digest of the one key that node NAME has for its life, and the keys that may never again speak for it. Who holds a
certificate for NAME but another key is refused. Deleting the Node frees the name for another machine, but revokes nothing: the pinned
machine may come back as long as nobody has taken its name.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from edgekube.api import meta, validate
from edgekube.api.bootstraptokens import BootstrapToken, read_text
from edgekube.api.item import Item
from edgekube.api.types import Obj
from edgekube.lib.clock import parse_rfc3339, rfc3339

NAMESPACE = "kube-system"
TYPE = "edgekube.io/node-identity"
SUFFIX = ".node-identity"
MACHINE_ANNOTATION = "edgekube.io/machine-id"  # on the signing request: which machine asks
PINNED_AT = "edgekube.io/pinned-at"
JOINING = timedelta(seconds=120)  # how long a name is kept for a machine that has its certificate but no Node yet
_MOST_REVOKED = 32

NAME_TAKEN, NAME_IN_USE, NAME_INVALID = "NameTaken", "NameInUse", "NameInvalid"
KEY_REVOKED, KEY_IN_USE, KEY_CHANGED = "KeyRevoked", "KeyInUse", "KeyChanged"
WAIT = "Wait"  # not decided: look again in a while
TOKEN_USED_UP, TOKEN_REVOKED, TOKEN_EXPIRED, TOKEN_BOUND = "TokenUsedUp", "TokenRevoked", "TokenExpired", "TokenBoundToNode"


@dataclass(frozen=True, slots=True)
class Pin:
    """What a pin's Secret says."""

    node: str
    key: str
    revoked_keys: frozenset[str] = frozenset()
    since: datetime | None = None

    @property
    def revoked(self) -> bool:
        return self.key in self.revoked_keys

    def trusts(self, key: str) -> bool:
        return key == self.key and key not in self.revoked_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """A client certificate asked for under a node's name, and what is known about it."""

    node: str
    key: str
    now: datetime
    machine: str = ""  # the machine's id, as the request says
    answers: bool | None = None  # whether the machine that has the name showed a sign of life since; None: not known yet
    itself: bool = False  # the node asks for its own next certificate
    token: BootstrapToken | None = None  # the token that asks, if one does
    by_token: bool = False
    pin: Pin | None = None
    owner: str = ""  # another node whose key this is
    key_revoked: bool = False  # under whatever name
    found: Obj | None = None  # the Node of that name
    seen: bool = False  # whether there has been such a Node since it was pinned
    server: bool = False  # it is a name of the server, or its own node's


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is "" if the certificate may be given, WAIT if that cannot be said yet; else reason and message go into the Denied
    condition."""

    reason: str = ""
    message: str = ""


def secret_name(node: str) -> str:
    return node + SUFFIX


def is_pin(item: Item) -> bool:
    return item.fields.get("type") == TYPE and item.key.namespace == NAMESPACE and item.key.name.endswith(SUFFIX)


def read(secret: Obj) -> Pin:
    data = secret.get("data") or {}
    since = meta.annotations(secret).get(PINNED_AT)
    try:
        moment = parse_rfc3339(since) if since else None
    except ValueError:
        moment = None
    name = str(secret["metadata"]["name"])
    return Pin(name.removesuffix(SUFFIX), read_text(data, "key-sha256"), frozenset(read_text(data, "revoked").split()), moment)


def pinned(node: str, key: str, now: datetime, old: Obj | None) -> Obj:
    """The Secret that gives the name to `key`. Keys that were revoked under it stay revoked."""
    secret = old or {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret_name(node), "namespace": NAMESPACE}, "type": TYPE}
    about = dict(secret["metadata"])
    about["annotations"] = dict(about.get("annotations") or {}) | {PINNED_AT: rfc3339(now)}
    return secret | {"metadata": about, "data": (secret.get("data") or {}) | {"key-sha256": _encoded(key)}}


def revoked(secret: Obj) -> Obj:
    """The same Secret with its key revoked."""
    pin = read(secret)
    keys = [*(key for key in read_text(secret.get("data") or {}, "revoked").split() if key != pin.key), pin.key][-_MOST_REVOKED:]
    return secret | {"data": (secret.get("data") or {}) | {"revoked": _encoded(" ".join(keys))}}


def plan_join(join: Join) -> Verdict:
    """Whether a machine gets a client certificate under a node's name. First who it is, then its token, then the name.

    A live node keeps its name, and the newcomer takes another; but one that only looks alive because it was set up anew a moment ago, with
    a new key, must not be given another name unasked. Where machine ids are the same, signs of life tell the one from the other.
    """
    node = join.node
    if wrong := validate.subdomain(node):
        return Verdict(NAME_INVALID, f"{node!r} is no name for a node: {wrong[0]}")
    if join.key_revoked or (join.pin is not None and join.key in join.pin.revoked_keys):
        why = f"the key of this machine was revoked; if it may come back as {node}, empty its data directory and join it with a new token"
        return Verdict(KEY_REVOKED, why)
    if join.itself:
        if join.pin is not None and join.pin.trusts(join.key):
            return Verdict()
        return Verdict(KEY_CHANGED, f"node {node} asks with another key than the one it is known by; a node keeps its key for life")
    if join.server:
        return Verdict(NAME_IN_USE, f"{node} is a name of the server itself: take another")
    if join.by_token:
        refused = _judge_token(join)
        if refused.reason:
            return refused
    if join.pin is not None and join.pin.key == join.key:
        return Verdict()
    if join.owner:
        why = f"this key belongs to node {join.owner}: if its disk was copied, empty the data directory of the copy"
        return Verdict(KEY_IN_USE, why)
    if join.token is not None and join.token.node == node:
        return Verdict()
    return _judge_name(join)


def _judge_token(join: Join) -> Verdict:
    token = join.token
    if token is None:
        return Verdict(TOKEN_REVOKED, 'the join token was revoked; make a new one with "edgekube token create"')
    if token.expired(join.now):
        return Verdict(TOKEN_EXPIRED, f'join token {token.id} has expired; make a new one with "edgekube token create"')
    if token.node and token.node != join.node:
        return Verdict(TOKEN_BOUND, f"join token {token.id} is for node {token.node} only, not for {join.node}")
    if token.left == 0 and not token.claimed(join.node, join.key):
        times = "one machine" if token.uses == 1 else f"{token.uses} machines"
        why = f'join token {token.id} was good for {times} and is used up; make a new one with "edgekube token create"'
        return Verdict(TOKEN_USED_UP, why)
    return Verdict()


def _judge_name(join: Join) -> Verdict:
    node, pin = join.node, join.pin
    fresh = pin is not None and pin.since is not None and join.now - pin.since < JOINING
    if join.found is None:
        if fresh and not join.seen:
            return Verdict(NAME_IN_USE, f"another machine is joining as {node} right now: take another name")
        return Verdict()
    if pin is None and not _ready(join.found):
        return Verdict()  # made by an administrator ahead of the machine, for its labels and taints
    same = bool(join.machine) and join.machine == (join.found.get("status") or {}).get("nodeInfo", {}).get("machineID")
    live = _ready(join.found) in ("True", "False") or (fresh and not _ready(join.found))
    if live and same and join.answers is None:
        return Verdict(WAIT, f"node {node} has the same machine id: is it a copy that runs, or was this machine set up anew?")
    if live and (not same or join.answers):
        return Verdict(NAME_IN_USE, f"another machine is running as node {node}: take another name")
    who = "this machine, with another key" if same else "another machine, which does not answer now"
    fixes = f'"kubectl delete node {node}", or join with a token made by "edgekube token create --node-name {node}"'
    return Verdict(NAME_TAKEN, f"node {node} was joined by {who}. To let this one have the name: {fixes}")


def _ready(node: Mapping[str, Any]) -> str:
    """The status of the Ready condition: only the node itself says True or False. "" if nothing has been said."""
    conditions: Sequence[Mapping[str, Any]] = (node.get("status") or {}).get("conditions") or ()
    return next((str(one.get("status")) for one in conditions if one.get("type") == "Ready"), "")


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
