"""Where a kind lives under the API server's address, pure."""

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from edgekube.api.kind import Kind


def path_of(kind: Kind, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """`/apis/apps/v1/namespaces/default/deployments/web/scale`."""
    parts = ["/api" if not kind.group else f"/apis/{kind.group}", kind.version]
    if kind.namespaced and namespace:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(kind.plural)
    if name:
        parts.append(quote(name, safe=""))
    if subresource:
        parts.append(subresource)
    return "/".join(parts)


def with_query(path: str, query: Mapping[str, str]) -> str:
    """`path` with the parameters that are not empty."""
    used = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(used)}" if used else path
