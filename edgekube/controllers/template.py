"""Pod templates of a Deployment, pure: are two the same, and a short stable hash that names and labels their ReplicaSet.

The hash is ours: upstream's depends on Go's memory dump of a struct. Only its form is the same (up to ten letters and digits that cannot
spell words); sets are found by comparing templates, so adopted ReplicaSets keep whatever name and hash they came with.
"""

import copy
import hashlib
from typing import Any

import orjson

from edgekube.api.types import Obj

HASH_LABEL = "pod-template-hash"
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_MAPS = frozenset(("labels", "annotations", "nodeSelector", "limits", "requests", "matchLabels", "overhead"))


def _normal(value: Any) -> Any:
    """Absent, null, an empty list and an empty map say the same."""
    if isinstance(value, dict):
        pairs = ((name, _normal(entry)) for name, entry in value.items())
        return {name: entry for name, entry in pairs if entry is not None and entry != [] and not (entry == {} and name in _MAPS)}
    if isinstance(value, list):
        return [_normal(entry) for entry in value]
    return value


def bare(template: Obj) -> Obj:
    """`template` for comparing: normal, and without the hash label."""
    normal: Obj = _normal(template)
    metadata = normal.get("metadata")
    if metadata and HASH_LABEL in metadata.get("labels", {}):
        labels = {name: value for name, value in metadata["labels"].items() if name != HASH_LABEL}
        metadata = {name: value for name, value in (metadata | {"labels": labels}).items() if value}
        normal["metadata"] = metadata
    if not normal.get("metadata", True):
        del normal["metadata"]
    return normal


def template_hash(template: Obj, collisions: int | None) -> str:
    """Changes with the template and with each collision."""
    text = orjson.dumps(bare(template), option=orjson.OPT_SORT_KEYS)
    salt = b"" if collisions is None else str(collisions).encode()
    number = int.from_bytes(hashlib.blake2b(text + b"|" + salt, digest_size=4).digest(), "big")
    return "".join(_ALPHABET[ord(char) % len(_ALPHABET)] for char in str(number))


def new_replica_set(deployment: Obj, hashed: str) -> Obj:
    """The ReplicaSet of the Deployment's template, without size, annotations and owner."""
    about, spec = deployment["metadata"], copy.deepcopy(deployment["spec"])
    template, selector = spec["template"], spec["selector"]
    labels = (template.setdefault("metadata", {}).get("labels") or {}) | {HASH_LABEL: hashed}
    template["metadata"]["labels"] = labels
    selector["matchLabels"] = (selector.get("matchLabels") or {}) | {HASH_LABEL: hashed}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": f"{about['name']}-{hashed}", "namespace": about["namespace"], "labels": dict(labels)},
        "spec": {"minReadySeconds": spec.get("minReadySeconds", 0), "selector": selector, "template": template},
    }
