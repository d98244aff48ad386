"""serviceaccounts/token: TokenRequest. Reads the service account and what the token is bound to; stores nothing."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekube.api import catalog, problems
from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.types import Obj
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.subresources.protocol import Subresource
from edgekube.apiserver.tokens import EXTENDED_SECONDS, WARN_AFTER_SECONDS, TokenSigner, new_jti, plan_claims
from edgekube.errors import BadRequest, Conflict, Invalid
from edgekube.lib.clock import rfc3339

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server

_GROUP = "authentication.k8s.io"
_DEFAULT_SECONDS, _LEAST, _MOST = 3600, 600, 1 << 32


@dataclass(frozen=True, slots=True)
class _Bound:
    """What a token ends with."""

    kind: str
    item: Item
    node: tuple[str, str] | None = None


class TokenSubresource(Subresource):
    """POST serviceaccounts/NAME/token."""

    name = "token"
    resources = ("serviceaccounts",)
    schema = "io.k8s.api.authentication.v1.TokenRequest"

    def __init__(self, signer: TokenSigner) -> None:
        self._signer = signer

    async def create(self, server: "Server", op: Operation, obj: Obj) -> Obj:
        metadata, spec = obj.get("metadata") or {}, obj.get("spec") or {}
        seconds = spec.get("expirationSeconds")
        seconds = _DEFAULT_SECONDS if seconds is None else seconds
        _check(op, metadata, seconds)
        await server.admit(op, "CREATE", obj, None)
        account = server.registry.get(catalog.SERVICE_ACCOUNT, op.namespace, op.name)
        bound = _bound(server, op, spec.get("boundObjectRef"))
        audiences = spec.get("audiences") or [self._signer.issuer]
        extend = seconds == WARN_AFTER_SECONDS and bound is not None and bound.kind == "Pod" and audiences == [self._signer.issuer]
        now = server.clock.now()
        claims = plan_claims(
            account=account,
            audiences=audiences,
            seconds=EXTENDED_SECONDS if extend else seconds,
            now=now.timestamp(),
            jti=new_jti(),
            bound_kind=bound.kind if bound else "",
            bound=bound.item if bound else None,
            node=bound.node if bound else None,
            warn_after=seconds if extend else 0,
        )
        if not self._signer.loaded:
            await asyncio.to_thread(self._signer.load)
        expires = now.fromtimestamp(int(claims.issued) + seconds, now.tzinfo)
        answer: dict[str, Any] = {
            "kind": "TokenRequest",
            "apiVersion": f"{_GROUP}/v1",
            "metadata": metadata | {"name": op.name, "namespace": op.namespace, "creationTimestamp": rfc3339(now)},
            "spec": spec | {"audiences": audiences, "expirationSeconds": seconds},
            "status": {"token": self._signer.sign(claims), "expirationTimestamp": rfc3339(expires)},
        }
        answer["spec"].setdefault("boundObjectRef", None)
        return answer


def _check(op: Operation, metadata: Obj, seconds: int) -> None:
    found = []
    if metadata.get("name") and metadata["name"] != op.name:
        found.append(problems.invalid("metadata.name", metadata["name"], "must match the service account name if specified"))
    if metadata.get("namespace") and metadata["namespace"] != op.namespace:
        found.append(problems.invalid("metadata.namespace", metadata["namespace"], "must match the service account namespace if specified"))
    if seconds < _LEAST:
        found.append(problems.invalid("spec.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"))
    if seconds > _MOST:
        found.append(problems.invalid("spec.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds"))
    if found:
        raise Invalid.of(_GROUP, "TokenRequest", op.name, found)


def _bound(server: "Server", op: Operation, reference: Obj | None) -> _Bound | None:
    if reference is None:
        return None
    name, kind_name = str(reference.get("name", "")), str(reference.get("kind", ""))
    kinds: dict[str, Kind] = {"Pod": catalog.POD, "Secret": catalog.SECRET, "Node": catalog.NODE}
    kind = kinds.get(kind_name) if reference.get("apiVersion") == "v1" else None
    if kind is None:
        group, _, version = str(reference.get("apiVersion", "")).rpartition("/")
        raise BadRequest(f"cannot bind token to object of type {group}/{version}, Kind={kind_name}")
    item = server.registry.get(kind, op.namespace if kind.namespaced else "", name)
    node = None
    if kind_name == "Pod":
        spec = item.decode()["spec"]
        runs_as = spec.get("serviceAccountName", "")
        if runs_as != op.name:
            raise BadRequest(f'cannot bind token for serviceaccount "{op.name}" to pod running with serviceaccount "{runs_as}"')
        if spec.get("nodeName"):
            host = server.registry.find(catalog.NODE, "", spec["nodeName"])
            node = (spec["nodeName"], host.uid if host is not None else "")
    if reference.get("uid") and reference["uid"] != item.uid:
        why = f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record."
        raise Conflict.of("", kind_name, name, f"{why} The object might have been deleted and then recreated")
    return _Bound(kind_name, item, node)
