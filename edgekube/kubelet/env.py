"""The environment of a container, with upstream's order and precedence. Pure: ConfigMaps, Secrets and Services are handed in.

Order: service variables < envFrom (later sources win) < env (later entries win). `$(NAME)` in an env value refers to what was defined
before it or to service variables; `$$` is a `$`. Upstream: kubelet_pods.go makeEnvironmentVariables, third_party/forked/golang/expansion.
"""

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgekube.api.types import Key, Obj
from edgekube.kubelet.fields import FieldUnknown, field_value, resource_value
from edgekube.kubelet.security import ConfigRefused

_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\)|)")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvSources:
    """Where values come from. `config_map` and `secret` answer None for "not there"."""

    config_map: Callable[[Key], Obj | None]
    secret: Callable[[Key], Obj | None]
    services: Sequence[tuple[str, str]]
    pod_ips: Sequence[str]
    host_ips: Sequence[str]
    node_name: str
    allocatable: Mapping[str, str]


def expand(text: str, lookup: Callable[[str], str | None]) -> str:
    """`$(NAME)` where known, `$$` to `$`; everything else stays as written."""
    if "$" not in text:
        return text

    def replaced(found: re.Match[str]) -> str:
        if found[1] == "$":
            return "$"
        if found[2] is None:
            return found[0]
        value = lookup(found[2])
        return found[0] if value is None else value

    return _REFERENCE.sub(replaced, text)


def environment(pod: Obj, container: Obj, sources: EnvSources) -> list[tuple[str, str]]:
    """Name and value pairs. Raises ConfigRefused with upstream's message."""
    services = dict(sources.services)
    values: dict[str, str] = {}
    for entry in container.get("envFrom") or ():
        values.update(_from_source(pod, entry, sources))
    defined: dict[str, str] = {}

    def lookup(name: str) -> str | None:
        return defined.get(name, values.get(name, services.get(name)))

    for entry in container.get("env") or ():
        value = _value(pod, container, entry, sources, lookup)
        if value is not None:
            defined[entry["name"]] = value
    values.update(defined)
    return list((services | values).items())


def _value(pod: Obj, container: Obj, entry: Obj, sources: EnvSources, lookup: Callable[[str], str | None]) -> str | None:
    source = entry.get("valueFrom")
    if not source:
        return expand(entry.get("value") or "", lookup)
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"]["fieldPath"], sources)
    if "resourceFieldRef" in source:
        try:
            return resource_value(pod, source["resourceFieldRef"], container=container["name"], allocatable=sources.allocatable)
        except FieldUnknown as error:
            raise ConfigRefused(str(error)) from None
    if "configMapKeyRef" in source:
        return _config_key(pod, source["configMapKeyRef"], sources)
    if "secretKeyRef" in source:
        return _secret_key(pod, source["secretKeyRef"], sources)
    raise ConfigRefused(f"environment variable {entry['name']} has an unsupported source")


def _field(pod: Obj, path: str, sources: EnvSources) -> str:
    special: dict[str, str] = {
        "spec.nodeName": sources.node_name,
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName") or "",
        "status.hostIP": sources.host_ips[0] if sources.host_ips else "",
        "status.hostIPs": ",".join(sources.host_ips),
        "status.podIP": sources.pod_ips[0] if sources.pod_ips else "",
        "status.podIPs": ",".join(sources.pod_ips),
    }
    if path in special:
        return special[path]
    try:
        return field_value(pod, path)
    except FieldUnknown as error:
        raise ConfigRefused(str(error)) from None


def _config_key(pod: Obj, ref: Obj, sources: EnvSources) -> str | None:
    namespace, name, key = pod["metadata"]["namespace"], ref.get("name") or "", ref["key"]
    found = sources.config_map(Key(namespace, name))
    data = {} if found is None else found.get("data") or {}
    if key in data:
        return str(data[key])
    _absent(ref, f'configmap "{name}" not found' if found is None else f"couldn't find key {key} in ConfigMap {namespace}/{name}")
    return None


def _secret_key(pod: Obj, ref: Obj, sources: EnvSources) -> str | None:
    namespace, name, key = pod["metadata"]["namespace"], ref.get("name") or "", ref["key"]
    found = sources.secret(Key(namespace, name))
    data = {} if found is None else found.get("data") or {}
    if key in data:
        return _text(base64.b64decode(data[key]))
    _absent(ref, f'secret "{name}" not found' if found is None else f"couldn't find key {key} in Secret {namespace}/{name}")
    return None


def _absent(ref: Obj, message: str) -> None:
    if not ref.get("optional"):
        raise ConfigRefused(message)


def _from_source(pod: Obj, entry: Obj, sources: EnvSources) -> Iterable[tuple[str, str]]:
    namespace, prefix = pod["metadata"]["namespace"], entry.get("prefix") or ""
    if ref := entry.get("configMapRef"):
        name = ref.get("name") or ""
        found = sources.config_map(Key(namespace, name))
        if found is None:
            _absent(ref, f'configmap "{name}" not found')
            return
        pairs = sorted((found.get("data") or {}).items())
    elif ref := entry.get("secretRef"):
        name = ref.get("name") or ""
        found = sources.secret(Key(namespace, name))
        if found is None:
            _absent(ref, f'secret "{name}" not found')
            return
        pairs = sorted((key, _text(base64.b64decode(value))) for key, value in (found.get("data") or {}).items())
    else:
        return
    for key, value in pairs:
        if _is_variable(prefix + key):
            yield prefix + key, value


def _text(data: bytes) -> str:
    # A process environment is bytes; what is not UTF-8 survives the way to the runtime as the replacement JSON can carry.
    return data.decode("utf-8", "replace")


def _is_variable(name: str) -> bool:
    return bool(name) and "=" not in name and all(" " <= char <= "~" for char in name)


def service_variables(namespace: str, services: Iterable[Obj], *, links: bool) -> list[tuple[str, str]]:
    """KUBERNETES_SERVICE_* always; those of the namespace's Services when `links` (enableServiceLinks)."""
    chosen: dict[str, Obj] = {}
    for service in services:
        metadata, address = service["metadata"], service["spec"].get("clusterIP")
        if not address or address == "None" or not service["spec"].get("ports"):
            continue
        if metadata["namespace"] == "default" and metadata["name"] == "kubernetes":
            chosen.setdefault("kubernetes", service)
        elif metadata["namespace"] == namespace and links:
            chosen[metadata["name"]] = service
    return [pair for name in sorted(chosen) for pair in _variables_of(name, chosen[name])]


def _variables_of(name: str, service: Obj) -> Iterable[tuple[str, str]]:
    prefix, address = name.upper().replace("-", "_"), service["spec"]["clusterIP"]
    ports = service["spec"]["ports"]
    yield f"{prefix}_SERVICE_HOST", address
    yield f"{prefix}_SERVICE_PORT", str(ports[0]["port"])
    for port in ports:
        if port.get("name"):
            yield f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}", str(port["port"])
    host = f"[{address}]" if ":" in address else address
    for index, port in enumerate(ports):
        protocol = port.get("protocol") or "TCP"
        url = f"{protocol.lower()}://{host}:{port['port']}"
        if index == 0:
            yield f"{prefix}_PORT", url
        stem = f"{prefix}_PORT_{port['port']}_{protocol}"
        yield stem, url
        yield f"{stem}_PROTO", protocol.lower()
        yield f"{stem}_PORT", str(port["port"])
        yield f"{stem}_ADDR", address
