"""Root CA publisher: every living namespace has the ConfigMap `kube-root-ca.crt` with the bundle that proves the API server to pods.

Reads namespaces, configmaps; writes configmaps. The bundle comes with the settings; without one nothing is published.
"""

from collections.abc import Hashable, Iterable, Sequence

from edgekube.api.catalog import CONFIG_MAP, NAMESPACE
from edgekube.api.item import Item
from edgekube.api.types import Key, Obj
from edgekube.controllers.base import DONE, Base, Maps, Owns, Result, Tools
from edgekube.controllers.replicaset import is_namespace_terminating
from edgekube.errors import AlreadyExists, ApiError

NAME = "kube-root-ca.crt"
DESCRIPTION = "kubernetes.io/description"
TEXT = (
    "The CA bundle of this cluster's API server as it is reached from inside, for example as kubernetes.default.svc. "
    "Other use is not promised to work on every distribution."
)


class RootCAController(Base):
    name = "root-ca-cert-publisher"
    primary = NAMESPACE

    def __init__(self, tools: Tools, *, ca_pem: str) -> None:
        super().__init__(tools)
        self._data = {"ca.crt": ca_pem}

    def watches(self) -> Sequence[Owns | Maps]:
        return (Maps(CONFIG_MAP, _of_ours),)

    async def reconcile(self, key: Key) -> Result:
        namespace = self.cache.get(NAMESPACE, key)
        if namespace is None or namespace.deleting or not self._data["ca.crt"]:
            return DONE
        item = self.cache.get(CONFIG_MAP, Key(key.name, NAME))
        if item is None:
            await self._create(key.name)
            return DONE
        current = item.decode()
        annotations = current["metadata"].get("annotations") or {}
        if current.get("data") == self._data and DESCRIPTION in annotations:
            return DONE
        current["data"] = dict(self._data)
        current["metadata"]["annotations"] = annotations | {DESCRIPTION: TEXT}
        await self.client.update(CONFIG_MAP, current)
        return DONE

    async def _create(self, namespace: str) -> None:
        metadata: Obj = {"name": NAME, "namespace": namespace, "annotations": {DESCRIPTION: TEXT}}
        config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(self._data)}
        try:
            await self.client.create(CONFIG_MAP, config_map, namespace)
        except AlreadyExists:
            return
        except ApiError as error:
            if not is_namespace_terminating(error):
                raise


def _of_ours(old: Item | None, new: Item | None) -> Iterable[Hashable]:
    item = new or old
    if item is not None and item.name == NAME:
        yield Key("", item.namespace)
