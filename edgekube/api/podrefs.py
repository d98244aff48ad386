"""Which ConfigMaps and Secrets a pod needs to run: env, volumes, pull secrets. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from edgekube.api.kind import Kind
from edgekube.api.kinds.configmap import CONFIG_MAP
from edgekube.api.kinds.secret import SECRET
from edgekube.api.types import Key, Obj


def references(pod: Obj) -> set[tuple[Kind, Key]]:
    """Every ConfigMap and Secret the pod names."""
    namespace = pod["metadata"]["namespace"]
    return {(kind, Key(namespace, name)) for kind, name in _names(pod["spec"]) if name}


def _names(spec: Mapping[str, Any]) -> Iterator[tuple[Kind, str]]:
    for secret in spec.get("imagePullSecrets") or ():
        yield SECRET, secret.get("name") or ""
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(group) or ():
            yield from _of_container(container)
    for volume in spec.get("volumes") or ():
        yield CONFIG_MAP, (volume.get("configMap") or {}).get("name") or ""
        yield SECRET, (volume.get("secret") or {}).get("secretName") or ""
        for source in (volume.get("projected") or {}).get("sources") or ():
            yield CONFIG_MAP, (source.get("configMap") or {}).get("name") or ""
            yield SECRET, (source.get("secret") or {}).get("name") or ""


def _of_container(container: Mapping[str, Any]) -> Iterator[tuple[Kind, str]]:
    for entry in container.get("envFrom") or ():
        yield CONFIG_MAP, (entry.get("configMapRef") or {}).get("name") or ""
        yield SECRET, (entry.get("secretRef") or {}).get("name") or ""
    for entry in container.get("env") or ():
        source: Mapping[str, Any] = entry.get("valueFrom") or {}
        yield CONFIG_MAP, (source.get("configMapKeyRef") or {}).get("name") or ""
        yield SECRET, (source.get("secretKeyRef") or {}).get("name") or ""
