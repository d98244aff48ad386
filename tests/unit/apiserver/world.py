"""A small world for the server's parts: objects in a real store (in memory), written without any server."""

from typing import Any

from edgekube.api import catalog
from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.types import Obj
from edgekube.apiserver.objects import Objects
from edgekube.apiserver.registry import Registry, tagger
from edgekube.store.memory import MemoryStore


class World:
    """Puts objects where the server would."""

    def __init__(self) -> None:
        self.store = MemoryStore(tagger)
        self.registry = Registry(self.store)
        self.objects = Objects(self.store)

    async def put(self, kind: Kind, name: str, namespace: str = "", *, uid: str = "", **fields: Any) -> Item:
        """Create or replace."""
        metadata: dict[str, Any] = {"name": name, "uid": uid or f"uid-{name}"} | fields.pop("metadata", {})
        if namespace:
            metadata["namespace"] = namespace
        obj: Obj = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **fields}
        current = self.registry.find(kind, namespace, name)
        if current is not None:
            return await self.registry.update(kind, obj, current.revision)
        return await self.registry.create(kind, obj)

    async def drop(self, kind: Kind, name: str, namespace: str = "") -> None:
        item = self.registry.get(kind, namespace, name)
        await self.registry.delete(kind, item.decode(), item.revision)

    async def role(self, name: str, *rules: Obj, namespace: str = "") -> None:
        await self.put(catalog.ROLE if namespace else catalog.CLUSTER_ROLE, name, namespace, rules=list(rules))

    async def bind(self, name: str, role: str, *subjects: Obj, namespace: str = "", role_kind: str = "ClusterRole") -> None:
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role}
        kind = catalog.ROLE_BINDING if namespace else catalog.CLUSTER_ROLE_BINDING
        await self.put(kind, name, namespace, roleRef=reference, subjects=list(subjects))


def rule(verbs: str, groups: str = "core", resources: str = "", *, names: str = "", urls: str = "") -> Obj:
    """A PolicyRule from words."""
    if urls:
        return {"verbs": verbs.split(), "nonResourceURLs": urls.split()}
    made: Obj = {
        "verbs": verbs.split(),
        "apiGroups": ["" if group == "core" else group for group in groups.split()],
        "resources": resources.split(),
    }
    return made | ({"resourceNames": names.split()} if names else {})


def user(name: str) -> Obj:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}


def group(name: str) -> Obj:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name}
