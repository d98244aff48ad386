"""When two pod specs mean the same though their JSON differs, as apiequality.Semantic.DeepEqual sees it. Pure.

Objects are kept as they were sent. A client that reads a pod into Go's types and writes it back leaves out what is false, zero or empty,
and spells quantities its own way; that is no change.
"""

from typing import Any

from edgekube.api import quantity
from edgekube.api.types import Obj

_PLAIN = frozenset((
    "hostNetwork", "hostPID", "hostIPC", "stdin", "stdinOnce", "tty", "readOnly", "hostPort", "initialDelaySeconds", "seconds", "lun",
    "partition", "weight", "discoveryCHAPAuth", "sessionCHAPAuth",
))  # fmt: skip
_MAPS = frozenset((
    "nodeSelector", "limits", "requests", "overhead", "matchLabels", "labels", "annotations", "options", "volumeAttributes", "metadata",
    "resources",
))  # fmt: skip
_AMOUNTS = frozenset(("limits", "requests", "overhead"))


def settled(spec: Obj) -> Obj:
    """The spec without what says nothing: null, empty texts, lists and maps, and the zero of fields that know no difference to absence."""
    return {name: inner for name, value in spec.items() if (inner := _value(name, value)) is not None}


def _value(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        if name in _AMOUNTS:
            inner: Obj = {key: _amount(text) for key, text in value.items()}
        else:
            inner = settled(value)
        return inner if inner or name not in _MAPS else None
    if isinstance(value, list):
        return [settled(one) if isinstance(one, dict) else one for one in value] or None
    if value == "" or (name in _PLAIN and not value):
        return None
    return _amount(value) if name in ("sizeLimit", "divisor") else value


def _amount(text: Any) -> str:
    return quantity.canonical(text if isinstance(text, str) else repr(text))
