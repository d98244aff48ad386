"""OpenAPI documents of what is served: v2 in one document, v3 as a root and one document per group and version.

kubectl reads them for explain, client-side validation, and how lists merge. Building one takes 20 to 200 ms of CPU and some
megabytes: call these from a thread, when somebody asks, and keep only the compressed bytes. Nothing is cached here.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from edgekube.api import discovery
from edgekube.api.kind import Kind
from edgekube.api.openapi_paths import paths
from edgekube.api.openapi_schemas import Schemas
from edgekube.api.schema import SCHEMA, fingerprint
from edgekube.api.types import Obj

KUBERNETES = "v1.36.0"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_ALWAYS = (f"{_META}Status", f"{_META}DeleteOptions", f"{_META}WatchEvent")
_SPOKEN = {
    "Scale": "io.k8s.api.autoscaling.v1.Scale",
    "Binding": "io.k8s.api.core.v1.Binding",
    "Eviction": "io.k8s.api.policy.v1.Eviction",
    "TokenRequest": "io.k8s.api.authentication.v1.TokenRequest",
}


def v2(kinds: Sequence[Kind]) -> bytes:
    """GET /openapi/v2: everything served, as JSON."""
    schemas = Schemas(version=2)
    document = {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": KUBERNETES},
        "paths": _all_paths(kinds, 2),
        "definitions": schemas.closure(_roots(kinds)),
    }
    return orjson.dumps(document)


def v3_root(kinds: Sequence[Kind]) -> Obj:
    """GET /openapi/v3: where each group and version's document is. The hash in the address changes with the content."""
    found = {}
    for group, version in _served(kinds):
        path = address(group, version)
        found[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={v3_hash(kinds, path)}"}
    return {"paths": found}


def v3(kinds: Sequence[Kind], path: str) -> bytes | None:
    """GET /openapi/v3/`path` ("api/v1", "apis/apps/v1"), as JSON; None if nothing is served there."""
    served = _at(kinds, path)
    if not served:
        return None
    document = {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": KUBERNETES},
        "paths": _all_paths(served, 3),
        "components": {"schemas": Schemas(version=3).closure(_roots(served))},
    }
    return orjson.dumps(document)


def v3_hash(kinds: Sequence[Kind], path: str) -> str:
    """SHA-512 in upper-case hex of all that the document is made from: known without building it. "" if nothing is served there."""
    served = _at(kinds, path)
    if not served:
        return ""
    named = [[kind.plural, kind.schema, list(kind.verbs), [name for name, _, _ in discovery.subresources(kind)]] for kind in served]
    return hashlib.sha512(orjson.dumps([KUBERNETES, fingerprint(), path, named])).hexdigest().upper()


def v2_hash(kinds: Sequence[Kind]) -> str:
    """The ETag of the v2 document."""
    parts = "".join(v3_hash(kinds, address(group, version)) for group, version in _served(kinds))
    return hashlib.sha512(parts.encode()).hexdigest().upper()


def address(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _served(kinds: Sequence[Kind]) -> list[tuple[str, str]]:
    return [(group, version) for group in discovery.groups(kinds) for version in discovery.versions(kinds, group)]


def _at(kinds: Sequence[Kind], path: str) -> list[Kind]:
    return sorted((kind for kind in kinds if address(kind.group, kind.version) == path), key=lambda kind: kind.plural)


def _roots(kinds: Iterable[Kind]) -> list[str]:
    """The definitions that the paths of `kinds` speak of."""
    known = set(SCHEMA.names())
    found = [*_ALWAYS]
    for kind in kinds:
        found += [kind.schema, f"{kind.schema}List"]
        found += [_SPOKEN[spoken] for _, (_, _, spoken), _ in discovery.subresources(kind) if spoken in _SPOKEN]
    return [name for name in dict.fromkeys(found) if name in known]


def _all_paths(kinds: Sequence[Kind], version: int) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for kind in kinds:
        found |= paths(kind, version, _SPOKEN)
    return dict(sorted(found.items()))
