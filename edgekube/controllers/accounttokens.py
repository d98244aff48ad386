"""Tokens in Secrets: a Secret of type kubernetes.io/service-account-token gets a token of the account that its annotation names.

Reads secrets, serviceaccounts; writes secrets. The token is asked of the API (TokenRequest) for as long as that grants, and bound to the
Secret: it ends with the Secret, and the Secret with its account. A key that is removed from the Secret comes back, the token as a new one.
"""

import base64
from collections.abc import Hashable, Iterable, Sequence

from edgekube.api.catalog import SECRET, SERVICE_ACCOUNT
from edgekube.api.item import Item
from edgekube.api.types import Key, Obj
from edgekube.controllers.base import DONE, Base, Maps, Owns, Result, Tools
from edgekube.controllers.replicaset import is_namespace_terminating
from edgekube.errors import ApiError, NotFound

TYPE = "kubernetes.io/service-account-token"
ACCOUNT = "kubernetes.io/service-account.name"
ACCOUNT_UID = "kubernetes.io/service-account.uid"
_SECONDS = 1 << 32  # the longest a TokenRequest grants


class AccountTokensController(Base):
    name = "tokens-controller"
    primary = None

    def __init__(self, tools: Tools, *, ca_pem: str) -> None:
        super().__init__(tools)
        self._ca = _encoded(ca_pem) if ca_pem else ""

    def watches(self) -> Sequence[Owns | Maps]:
        return (Maps(SECRET, _tokens), Maps(SERVICE_ACCOUNT, self._of_account))

    def _of_account(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        """An account that comes or goes may leave Secrets without one; its other changes mean nothing."""
        item = new or old
        if item is not None and (old is None or new is None or old.uid != new.uid):
            yield from (secret.key for secret in self.cache.list(SECRET, item.namespace) if _is_token(secret))

    async def reconcile(self, key: Key) -> Result:
        item = self.cache.get(SECRET, key)
        if item is None or item.deleting or not _is_token(item):
            return DONE
        secret = item.decode()
        annotations = secret["metadata"].get("annotations") or {}
        account = await self._account(key.namespace, annotations.get(ACCOUNT, ""))
        if account is None or annotations.get(ACCOUNT_UID, account["metadata"]["uid"]) != account["metadata"]["uid"]:
            try:
                await self.client.delete(SECRET, key.name, key.namespace, uid=item.uid, revision=str(item.revision))
            except NotFound:
                return DONE
            return DONE
        try:
            await self._fill(item, secret, account)
        except ApiError as error:
            if not is_namespace_terminating(error):
                raise
        return DONE

    async def _account(self, namespace: str, name: str) -> Obj | None:
        """Asked of the server: a cache that is late must not cost a Secret."""
        try:
            return await self.client.get(SERVICE_ACCOUNT, name, namespace)
        except NotFound:
            return None

    async def _fill(self, item: Item, secret: Obj, account: Obj) -> None:
        data = dict(secret.get("data") or {})
        annotations = dict(secret["metadata"].get("annotations") or {}) | {ACCOUNT_UID: account["metadata"]["uid"]}
        if self._ca:
            data["ca.crt"] = self._ca
        data["namespace"] = data.get("namespace") or _encoded(item.namespace)
        if not data.get("token"):
            data["token"] = _encoded(await self._token(item, account))
        if data != secret.get("data") or annotations != secret["metadata"].get("annotations"):
            secret["data"], secret["metadata"]["annotations"] = data, annotations
            await self.client.update(SECRET, secret)

    async def _token(self, item: Item, account: Obj) -> str:
        bound = {"apiVersion": "v1", "kind": "Secret", "name": item.name, "uid": item.uid}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": _SECONDS, "boundObjectRef": bound},
        }
        name = account["metadata"]["name"]
        answer = await self.client.create(SERVICE_ACCOUNT, request, item.namespace, subresource="token", name=name)
        return str(answer["status"]["token"])


def _tokens(old: Item | None, new: Item | None) -> Iterable[Hashable]:
    del old
    if new is not None and _is_token(new):
        yield new.key


def _is_token(item: Item) -> bool:
    return item.fields.get("type") == TYPE


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
