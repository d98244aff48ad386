"""Acting as somebody else: the Impersonate-* headers, each checked as upstream's impersonation filter does."""

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote

from edgekube.apiserver.identity import Attributes, User
from edgekube.errors import BadRequest

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server

_USER, _GROUP, _UID, _EXTRA = "impersonate-user", "impersonate-group", "impersonate-uid", "impersonate-extra-"
_AUTHENTICATED, _UNAUTHENTICATED = "system:authenticated", "system:unauthenticated"
_SERVICE_ACCOUNT = "system:serviceaccount:"


def impersonated(server: "Server", user: User, headers: Mapping[str, str]) -> User:
    """The user that the headers ask for, or `user`. Raises Forbidden, BadRequest. Repeated headers arrive joined by newlines."""
    name = headers.get(_USER, "")
    groups = [value for value in headers.get(_GROUP, "").split("\n") if value]
    uid = headers.get(_UID, "")
    extra = _extra(headers)
    if not name:
        if groups or uid or extra:
            text = f"requested {groups!r} without impersonating a user" if groups else "requested impersonation without a user"
            raise BadRequest(text)
        return user
    namespace, account = _service_account(name)
    if account:
        _ask(server, user, resource="serviceaccounts", namespace=namespace, name=account)
        groups = groups or ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
    else:
        _ask(server, user, resource="users", name=name)
    for group in [value for value in headers.get(_GROUP, "").split("\n") if value]:
        _ask(server, user, resource="groups", name=group)
    for key, values in extra.items():
        for value in values:
            _ask(server, user, resource="userextras", subresource=key, name=value, group="authentication.k8s.io")
    if uid:
        _ask(server, user, resource="uids", name=uid, group="authentication.k8s.io")
    if name != "system:anonymous":
        if _UNAUTHENTICATED not in groups and _AUTHENTICATED not in groups:
            groups = [*groups, _AUTHENTICATED]
    elif _UNAUTHENTICATED not in groups:
        groups = [*groups, _UNAUTHENTICATED]
    return User(name, tuple(groups), uid, extra)


def _extra(headers: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {unquote(name.removeprefix(_EXTRA)): tuple(value.split("\n")) for name, value in headers.items() if name.startswith(_EXTRA)}


def _service_account(name: str) -> tuple[str, str]:
    if not name.startswith(_SERVICE_ACCOUNT):
        return "", ""
    namespace, _, account = name.removeprefix(_SERVICE_ACCOUNT).partition(":")
    return (namespace, account) if namespace and account and ":" not in account else ("", "")


def _ask(server: "Server", user: User, *, resource: str, name: str, namespace: str = "", subresource: str = "", group: str = "") -> None:
    attributes = Attributes(
        user=user, verb="impersonate", resource=resource, subresource=subresource, group=group, version="v1", namespace=namespace, name=name
    )
    server.require(attributes)
