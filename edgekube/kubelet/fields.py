"""fieldRef and resourceFieldRef: values of the pod itself, for env and downward API volumes. Pure."""

import math
import re
from collections.abc import Mapping
from fractions import Fraction

from edgekube.api import quantity
from edgekube.api.types import Obj
from edgekube.kubelet.podspec import find_container

_SUBSCRIPT = re.compile(r"^(metadata\.(?:labels|annotations))\['(.*)'\]$")


class FieldUnknown(Exception):
    """The path names nothing a pod has."""


def field_value(pod: Obj, path: str) -> str:
    """One of the paths upstream supports in env and volumes. Raises FieldUnknown."""
    metadata = pod["metadata"]
    if found := _SUBSCRIPT.match(path):
        values: Mapping[str, str] = metadata.get(found[1].partition(".")[2]) or {}
        return values.get(found[2], "")
    if path in ("metadata.name", "metadata.namespace", "metadata.uid"):
        return str(metadata[path.partition(".")[2]])
    if path in ("metadata.labels", "metadata.annotations"):
        return _format_map(metadata.get(path.partition(".")[2]))
    raise FieldUnknown(f"unsupported fieldPath: {path}")


def _format_map(values: Mapping[str, str] | None) -> str:
    return "\n".join(f"{name}={_quoted(value)}" for name, value in sorted((values or {}).items()))


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}


def _quoted(text: str) -> str:
    """Go's %q."""
    out = []
    for char in text:
        code = ord(char)
        if char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif char.isprintable():
            out.append(char)
        elif code < 0x80:
            out.append(f"\\x{code:02x}")
        else:
            out.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return '"' + "".join(out) + '"'


def resource_value(pod: Obj, source: Mapping[str, str], *, container: str, allocatable: Mapping[str, str]) -> str:
    """`limits.cpu` and the like of a container, divided by `divisor` and rounded up. Limits default to what the node has."""
    name = source.get("containerName") or container
    found = find_container(pod, name)
    if found is None:
        raise FieldUnknown(f"container {name} not found")
    group, _, resource = source["resource"].partition(".")
    if group not in ("limits", "requests"):
        raise FieldUnknown(f"unsupported container resource : {source['resource']}")
    stated = (found.get("resources") or {}).get(group) or {}
    text = stated.get(resource)
    if text is None or (group == "limits" and quantity.parse(text) == 0):
        text = allocatable.get(resource, "0") if group == "limits" and resource in ("cpu", "memory", "ephemeral-storage") else text or "0"
    divisor = Fraction(quantity.parse(source.get("divisor") or "1"))
    return str(math.ceil(Fraction(quantity.parse(text)) / (divisor or 1)))
