"""What printer columns share: ages, names, counts, in the words of upstream's printers and duration package. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgekube.api.kind import Column
from edgekube.api.types import Obj
from edgekube.lib.clock import parse_rfc3339

UNKNOWN = "<unknown>"
NONE = "<none>"


def human_duration(seconds: float) -> str:
    """duration.HumanDuration: 2m30s, 3h, 5d4h."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 0:
        return "0s"
    if whole < 120:
        return f"{whole}s"
    minutes = whole // 60
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    hours = minutes // 60
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 24 * 8:
        return _two(days, "d", hours % 24, "h")
    if hours < 24 * 365 * 2:
        return f"{days}d"
    years = days // 365
    if hours < 24 * 365 * 8:
        return _two(years, "y", days % 365, "d")
    return f"{years}y"


def _two(large: int, unit: str, small: int, small_unit: str) -> str:
    return f"{large}{unit}{small}{small_unit}" if small else f"{large}{unit}"


def since(text: Any, now: float) -> str:
    """Age of a time the API wrote; `<unknown>` without one."""
    if not text:
        return UNKNOWN
    try:
        return human_duration(now - parse_rfc3339(text).timestamp())
    except ValueError:
        return UNKNOWN


def name(obj: Obj, _now: float) -> str:
    return str(obj["metadata"].get("name", ""))


def age(obj: Obj, now: float) -> str:
    return since(obj["metadata"].get("creationTimestamp"), now)


NAME = Column("Name", name, format="name", description="Name must be unique within a namespace.")
AGE = Column("Age", age, description="CreationTimestamp is the server time when this object was created.")


def joined_labels(labels: Mapping[str, str] | None) -> str:
    """labels.FormatLabels: a=b,c=d in order, `<none>` if empty."""
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or NONE


def selector(found: Obj | None) -> str:
    """metav1.FormatLabelSelector."""
    if not found:
        return NONE
    parts = [f"{key}={value}" for key, value in sorted((found.get("matchLabels") or {}).items())]
    for entry in found.get("matchExpressions") or ():
        operator, key, values = entry["operator"], entry["key"], ",".join(sorted(entry.get("values") or ()))
        parts.append({"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key, "DoesNotExist": f"!{key}"}[operator])
    return ",".join(parts) or NONE


def containers(template: Obj) -> tuple[str, str]:
    """Names and images of the containers of a pod template."""
    found = (template.get("spec") or {}).get("containers") or ()
    return ",".join(c.get("name", "") for c in found), ",".join(c.get("image", "") for c in found)


def more(texts: Sequence[str], most: int) -> str:
    """The first `most` of a list, then how many more."""
    shown = ",".join(texts[:most])
    return f"{shown} + {len(texts) - most} more..." if len(texts) > most else shown or NONE
