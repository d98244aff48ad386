"""ServiceAccount: every living namespace has a `default` one. Reads namespaces, serviceaccounts; writes serviceaccounts."""

from collections.abc import Hashable, Iterable, Sequence

from edgekube.api.catalog import NAMESPACE, SERVICE_ACCOUNT
from edgekube.api.item import Item
from edgekube.api.types import Key
from edgekube.controllers.base import DONE, Base, Maps, Owns, Result
from edgekube.controllers.replicaset import is_namespace_terminating
from edgekube.errors import AlreadyExists, ApiError

DEFAULT = "default"


class ServiceAccountController(Base):
    name = "service-account-controller"
    primary = NAMESPACE

    def watches(self) -> Sequence[Owns | Maps]:
        return (Maps(SERVICE_ACCOUNT, _of_deleted),)

    async def reconcile(self, key: Key) -> Result:
        namespace = self.cache.get(NAMESPACE, key)
        if namespace is None or namespace.deleting or self.cache.get(SERVICE_ACCOUNT, Key(key.name, DEFAULT)) is not None:
            return DONE
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": DEFAULT, "namespace": key.name}}
        try:
            await self.client.create(SERVICE_ACCOUNT, account, key.name)
        except AlreadyExists:
            return DONE
        except ApiError as error:
            if not is_namespace_terminating(error):
                raise
        return DONE


def _of_deleted(old: Item | None, new: Item | None) -> Iterable[Hashable]:
    if new is None and old is not None and old.name == DEFAULT:
        yield Key("", old.namespace)
