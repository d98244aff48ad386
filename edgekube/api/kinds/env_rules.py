"""Validation of a container's ports and environment, and of references to fields (pkg/apis/core/validation/validation.go).

Each function appends to `found`; `at` is the path of what it looks at.
"""

from collections.abc import Sequence

from edgekube.api import ipaddresses, problems, quantity, validate
from edgekube.api.kinds.path_rules import local_descending_path
from edgekube.api.types import Obj
from edgekube.errors import Problem

PROTOCOLS = ("SCTP", "TCP", "UDP")
ENV_FIELDS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
    "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
_KNOWN_FIELDS = frozenset((
    *ENV_FIELDS, "metadata.annotations", "metadata.labels", "metadata.resourceVersion", "spec.restartPolicy", "spec.schedulerName",
    "spec.hostNetwork", "status.phase", "status.nominatedNodeName",
))  # fmt: skip
RESOURCE_FIELDS = (
    "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory",
)  # fmt: skip
_HUGE = ("requests.hugepages-", "limits.hugepages-")
_BYTE_DIVISORS = frozenset(("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"))
_BYTE_TEXT = "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the {} resource"


def ports(found: list[Problem], at: str, listed: Sequence[Obj]) -> None:
    """Ports of one container."""
    names: set[str] = set()
    for index, port in enumerate(listed):
        name = port.get("name")
        if name:
            if wrong := validate.port_name(name):
                found += validate.each(f"{at}[{index}].name", name, wrong)
            elif name in names:
                found.append(problems.duplicate(f"{at}[{index}].name", name))
            else:
                names.add(name)
        number = port.get("containerPort", 0)
        if not number:
            found.append(problems.required(f"{at}[{index}].containerPort"))
        elif wrong := validate.port_number(number):
            found += validate.each(f"{at}[{index}].containerPort", number, wrong)
        host = port.get("hostPort", 0)
        if host and (wrong := validate.port_number(host)):
            found += validate.each(f"{at}[{index}].hostPort", host, wrong)
        protocol = port.get("protocol", "")
        if not protocol:
            found.append(problems.required(f"{at}[{index}].protocol"))
        elif protocol not in PROTOCOLS:
            found.append(problems.not_supported(f"{at}[{index}].protocol", protocol, PROTOCOLS))
        if port.get("hostIP") and (wrong := ipaddresses.ip(port["hostIP"])):
            found += validate.each(f"{at}[{index}].hostIP", port["hostIP"], wrong)


def host_ports(found: list[Problem], at: str, containers: Sequence[tuple[int, Obj]]) -> None:
    """No two of these containers take the same port of the node."""
    taken: set[str] = set()
    for index, container in containers:
        for number, port in enumerate(container.get("ports") or ()):
            if port.get("hostPort"):
                shown = f"{port.get('protocol', '')}/{port.get('hostIP', '')}/{port['hostPort']}"
                if shown in taken:
                    found.append(problems.duplicate(f"{at}[{index}].ports[{number}].hostPort", shown))
                taken.add(shown)


def env(found: list[Problem], at: str, listed: Sequence[Obj]) -> None:
    """Environment variables and where their values come from."""
    for index, entry in enumerate(listed):
        name = entry.get("name")
        if not name:
            found.append(problems.required(f"{at}[{index}].name"))
        elif wrong := validate.env_name(name):
            found += validate.each(f"{at}[{index}].name", name, wrong)
        source = entry.get("valueFrom")
        if source is not None:
            _value_from(found, f"{at}[{index}].valueFrom", source, bool(entry.get("value")))


def _value_from(found: list[Problem], at: str, source: Obj, has_value: bool) -> None:
    sources = 0
    if (field := source.get("fieldRef")) is not None:
        sources += 1
        field_ref(found, f"{at}.fieldRef", field, ENV_FIELDS)
    if (resource := source.get("resourceFieldRef")) is not None:
        sources += 1
        resource_ref(found, f"{at}.resourceFieldRef", resource, in_volume=False)
    for kind in ("configMapKeyRef", "secretKeyRef"):
        if (key := source.get(kind)) is not None:
            sources += 1
            found += validate.each(f"{at}.{kind}.name", key.get("name", ""), validate.subdomain(key.get("name", "")))
            _key(found, f"{at}.{kind}.key", key.get("key", ""))
    if (file := source.get("fileKeyRef")) is not None:
        sources += 1
        _file_ref(found, f"{at}.fileKeyRef", file)
    if sources == 0:
        why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        found.append(problems.invalid(at, "", why))
    elif has_value:
        found.append(problems.invalid(at, "", "may not be specified when `value` is not empty"))
    elif sources > 1:
        found.append(problems.invalid(at, "", "may not have more than one field specified at a time"))


def _key(found: list[Problem], at: str, key: str) -> None:
    if not key:
        found.append(problems.required(at))
    elif wrong := validate.config_key(key):
        found += validate.each(at, key, wrong)


def _file_ref(found: list[Problem], at: str, ref: Obj) -> None:
    if not ref.get("key"):
        found.append(problems.required(f"{at}.key"))
    else:
        found += validate.each(f"{at}.key", ref["key"], validate.env_name(ref["key"]))
    if not ref.get("volumeName"):
        found.append(problems.required(f"{at}.volumeName"))
    else:
        found += validate.each(f"{at}.volumeName", ref["volumeName"], validate.label(ref["volumeName"]))
    if not ref.get("path"):
        found.append(problems.required(f"{at}.path"))
    else:
        local_descending_path(found, f"{at}.path", ref["path"])


def split_subscript(path: str) -> tuple[str, str, bool]:
    """fieldpath.SplitMaybeSubscriptedPath: `metadata.labels['a']` -> (metadata.labels, a, True)."""
    if path.endswith("']") and "['" in path:
        head, _, rest = path[:-2].partition("['")
        if head:
            return head, rest, True
    return path, "", False


def field_ref(found: list[Problem], at: str, ref: Obj, allowed: Sequence[str]) -> None:
    """A field of the pod, for the downward API."""
    version, path = ref.get("apiVersion", ""), ref.get("fieldPath", "")
    if not version:
        found.append(problems.required(f"{at}.apiVersion"))
        return
    if not path:
        found.append(problems.required(f"{at}.fieldPath"))
        return
    head, key, subscripted = split_subscript(path)
    known = head in ("metadata.annotations", "metadata.labels") if subscripted else path in _KNOWN_FIELDS
    if version != "v1":
        why = f"error converting fieldPath: unsupported pod version: {version}"
        found.append(problems.invalid(f"{at}.fieldPath", path, why))
    elif subscripted and not known:
        why = f"error converting fieldPath: field label does not support subscript: {path}"
        found.append(problems.invalid(f"{at}.fieldPath", path, why))
    elif not known:
        why = f"error converting fieldPath: field label not supported: {path}"
        found.append(problems.invalid(f"{at}.fieldPath", path, why))
    elif subscripted:
        name = key.lower() if head == "metadata.annotations" else key
        found += validate.each(at, name, validate.qualified(name))
    elif path not in allowed:
        found.append(problems.not_supported(f"{at}.fieldPath", path, sorted(allowed)))


def resource_ref(found: list[Problem], at: str, ref: Obj, *, in_volume: bool) -> None:
    """A container's request or limit, for the downward API."""
    resource = ref.get("resource", "")
    if in_volume and not ref.get("containerName"):
        found.append(problems.required(f"{at}.containerName"))
    elif not resource:
        found.append(problems.required(f"{at}.resource"))
    elif resource not in RESOURCE_FIELDS and not resource.startswith(_HUGE):
        found.append(problems.not_supported(f"{at}.resource", resource, RESOURCE_FIELDS))
    divisor = ref.get("divisor")
    if not divisor or quantity.parse(divisor) == 0:
        return
    kind = resource.partition(".")[2]
    if kind == "cpu":
        if divisor not in ("1m", "1"):
            why = "only divisor's values 1m and 1 are supported with the cpu resource"
            found.append(problems.invalid(f"{at}.divisor", resource, why))
    elif divisor not in _BYTE_DIVISORS:
        named = {"memory": "memory", "ephemeral-storage": "local ephemeral storage"}.get(kind)
        named = "hugepages" if named is None and resource.startswith(_HUGE) else named
        if named:
            found.append(problems.invalid(f"{at}.divisor", resource, _BYTE_TEXT.format(named)))


def env_from(found: list[Problem], at: str, listed: Sequence[Obj]) -> None:
    """Whole ConfigMaps and Secrets as environment."""
    for index, entry in enumerate(listed):
        if entry.get("prefix"):
            found += validate.each(f"{at}[{index}].prefix", entry["prefix"], validate.env_name(entry["prefix"]))
        sources = 0
        for kind in ("configMapRef", "secretRef"):
            ref = entry.get(kind)
            if ref is not None:
                sources += 1
                if not ref.get("name"):
                    found.append(problems.required(f"{at}[{index}].{kind}.name"))
                else:
                    found += validate.each(f"{at}[{index}].{kind}.name", ref["name"], validate.subdomain(ref["name"]))
        if sources == 0:
            found.append(problems.invalid(at, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif sources > 1:
            found.append(problems.invalid(at, "", "may not have more than one field specified at a time"))
