"""Applying one object and deleting one, with what protects it. Idempotent: again changes nothing."""

from collections.abc import Mapping
from typing import Any

from edgekube.api import meta
from edgekube.api.catalog import KINDS, find_kind
from edgekube.api.kind import Kind
from edgekube.api.types import Obj
from edgekube.client.protocol import Client, PatchType
from edgekube.errors import Conflict, NotFound
from edgekube.manifests.files import Ref

MANAGER = "edgekube-manifests"
LABEL, FILE, PRUNE = "edgekube.io/manifests", "edgekube.io/manifest-file", "edgekube.io/prune"
PRECIOUS = ("PersistentVolumeClaim", "PersistentVolume", "CustomResourceDefinition")
_MADE = {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")}  # in every namespace


class Unknown(Exception):
    """No such kind (yet)."""


def marked(obj: Obj, file: str) -> Obj:
    """As it is applied: with its owner's mark."""
    metadata: Mapping[str, Any] = obj["metadata"]
    labels = {**(metadata.get("labels") or {}), LABEL: "true"}
    annotations = {**(metadata.get("annotations") or {}), FILE: file}
    return {**obj, "metadata": {**metadata, "labels": labels, "annotations": annotations}}


async def apply(client: Client, ref: Ref, obj: Obj, *, dry_run: bool = False) -> None:
    """Raises Unknown, ApiError."""
    kind = find_kind(obj["apiVersion"], ref.kind)
    if kind is None:
        raise Unknown(f'no matches for kind "{ref.kind}" in version "{obj["apiVersion"]}"')
    patch = PatchType.APPLY
    await client.patch(kind, ref.name, ref.namespace, obj, patch_type=patch, field_manager=MANAGER, force=True, dry_run=dry_run)


async def prune(client: Client, ref: Ref) -> str:
    """Delete what no file declares any more; why it is kept, "" if it is gone or on its way. Raises Unknown, ApiError."""
    kind = next((one for one in KINDS if (one.group, one.kind) == (ref.group, ref.kind)), None)
    if kind is None:
        raise Unknown(f'no matches for kind "{ref.kind}" in group "{ref.group}"')
    try:
        live = await client.get(kind, ref.name, ref.namespace)
        if why := await _kept(client, kind, live):
            return why
        await client.delete(kind, ref.name, ref.namespace, propagation="Background", uid=live["metadata"]["uid"])
    except (NotFound, Conflict):  # gone, or another one of the same name
        return ""
    return ""


async def _kept(client: Client, kind: Kind, live: Obj) -> str:
    """Why the object stays."""
    if LABEL not in (live["metadata"].get("labels") or {}):
        return f"it has no label {LABEL} any more"
    wish = meta.annotations(live).get(PRUNE)
    if wish == "false":
        return f'its annotation {PRUNE} is "false"'
    if wish == "true":
        return ""
    if kind.kind in PRECIOUS:
        return f'deleting it may lose data; annotate it {PRUNE}: "true", or delete it yourself'
    if kind.kind == "Namespace" and (other := await _content(client, live["metadata"]["name"])):
        return f'it still holds {other}; annotate it {PRUNE}: "true", or delete it yourself'
    return ""


async def _content(client: Client, namespace: str) -> str:
    """Something in the namespace that goes with nothing else, nor by itself."""
    for kind in KINDS:
        if not kind.namespaced or kind.ephemeral or kind.deprecated:
            continue
        for item in (await client.list(kind, namespace)).items:
            if not (item.controller or item.deleting or item.owners or (kind.kind, item.key.name) in _MADE):
                return f"{kind.kind} {item.key.name}"
    return ""
