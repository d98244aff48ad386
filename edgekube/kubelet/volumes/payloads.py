"""The files of configMap, secret, downwardAPI and projected volumes. Pure: objects and tokens are handed in.

Upstream: pkg/volume/{configmap,secret,downwardapi,projected}. The default mode is 0644.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgekube.api.catalog import CONFIG_MAP, SECRET
from edgekube.api.kind import Kind
from edgekube.api.types import Key, Obj
from edgekube.kubelet.fields import FieldUnknown, field_value, resource_value
from edgekube.kubelet.objects import payload
from edgekube.kubelet.volumes.protocol import VolumeNotReady
from edgekube.kubelet.volumes.writer import File

DEFAULT_MODE = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Where contents come from. `token(audience, seconds, name)` answers a service account token."""

    find: Callable[[Kind, Key], Obj | None]
    tokens: Mapping[tuple[str, int], str]
    allocatable: Mapping[str, str]


def object_files(kind: Kind, source: Mapping[str, Any], name: str, namespace: str, mode: int, inputs: Inputs) -> dict[str, File]:
    """All keys of an object, or those of `items`. Raises VolumeNotReady."""
    found = inputs.find(kind, Key(namespace, name))
    word = "configmap" if kind == CONFIG_MAP else "secret"
    optional = bool(source.get("optional"))
    if found is None:
        if optional:
            return {}
        raise VolumeNotReady(f'{word} "{name}" not found')
    data = payload(kind, found)
    items = source.get("items")
    if not items:
        return {key: File(value, mode) for key, value in data.items()}
    files: dict[str, File] = {}
    for item in items:
        if item["key"] in data:
            files[item["path"]] = File(data[item["key"]], _mode(item.get("mode"), mode))
        elif not optional:
            raise VolumeNotReady(f"{word} references non-existent {'config' if kind == CONFIG_MAP else 'secret'} key: {item['key']}")
    return files


def downward_files(pod: Obj, source: Mapping[str, Any], mode: int, inputs: Inputs) -> dict[str, File]:
    files: dict[str, File] = {}
    for item in source.get("items") or ():
        try:
            if "fieldRef" in item:
                text = field_value(pod, item["fieldRef"]["fieldPath"])
            else:
                text = resource_value(pod, item["resourceFieldRef"], container="", allocatable=inputs.allocatable)
        except FieldUnknown as error:
            raise VolumeNotReady(str(error)) from error
        files[item["path"]] = File(text.encode(), _mode(item.get("mode"), mode))
    return files


def volume_files(pod: Obj, volume: Obj, inputs: Inputs) -> dict[str, File] | None:
    """The whole payload of a volume, None if it is of another kind."""
    namespace = pod["metadata"]["namespace"]
    if (config := volume.get("configMap")) is not None:
        mode = _mode(config.get("defaultMode"), DEFAULT_MODE)
        return object_files(CONFIG_MAP, config, config.get("name") or "", namespace, mode, inputs)
    if (secret := volume.get("secret")) is not None:
        mode = _mode(secret.get("defaultMode"), DEFAULT_MODE)
        return object_files(SECRET, secret, secret.get("secretName") or "", namespace, mode, inputs)
    if (downward := volume.get("downwardAPI")) is not None:
        return downward_files(pod, downward, _mode(downward.get("defaultMode"), DEFAULT_MODE), inputs)
    if (projected := volume.get("projected")) is not None:
        return _projected_files(pod, projected, inputs)
    return None


def _projected_files(pod: Obj, projected: Mapping[str, Any], inputs: Inputs) -> dict[str, File]:
    mode, namespace = _mode(projected.get("defaultMode"), DEFAULT_MODE), pod["metadata"]["namespace"]
    files: dict[str, File] = {}
    for source in projected.get("sources") or ():
        if part := source.get("configMap"):
            files |= object_files(CONFIG_MAP, part, part.get("name") or "", namespace, mode, inputs)
        elif part := source.get("secret"):
            files |= object_files(SECRET, part, part.get("name") or "", namespace, mode, inputs)
        elif part := source.get("downwardAPI"):
            files |= downward_files(pod, part, mode, inputs)
        elif part := source.get("serviceAccountToken"):
            files[part["path"]] = _token_file(pod, inputs.tokens[token_key(part)], mode)
        elif "clusterTrustBundle" in source and not source["clusterTrustBundle"].get("optional"):
            raise VolumeNotReady("clusterTrustBundle sources are not supported")
    return files


def token_key(part: Mapping[str, Any]) -> tuple[str, int]:
    return part.get("audience") or "", int(part.get("expirationSeconds") or 3600)


def _token_file(pod: Obj, token: str, mode: int) -> File:
    """Readable by whoever the containers run as: by their one user, by the fsGroup, else by the mode asked for."""
    spec = pod["spec"]
    shared = spec.get("securityContext") or {}
    if shared.get("fsGroup") is not None:
        return File(token.encode(), 0o600)
    users: set[Any] = set()
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        user = (container.get("securityContext") or {}).get("runAsUser", shared.get("runAsUser"))
        users.add(user)
    if len(users) == 1 and None not in users:
        return File(token.encode(), 0o600, owner=int(users.pop()))
    return File(token.encode(), mode)


def _mode(value: Any, default: int) -> int:
    return default if value is None else int(value)


def wanted_tokens(volume: Obj) -> set[tuple[str, int]]:
    """(audience, seconds) of each token a projected volume wants."""
    sources = (volume.get("projected") or {}).get("sources") or ()
    return {token_key(source["serviceAccountToken"]) for source in sources if source.get("serviceAccountToken")}
