"""What a path addresses: `/apis/apps/v1/namespaces/default/deployments/web/scale` is read once into a Target.

The RBAC attributes fall out of it. Source of the rules: k8s.io/apiserver/pkg/endpoints/request/requestinfo.go.
"""

from edgekube.api.selectors import parse_fields
from edgekube.apiserver.request import Request, Target
from edgekube.errors import BadRequest

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
# `namespaces/x/<one of these>` is a subresource of the namespace, not a resource in it.
_OF_NAMESPACE = frozenset(("status", "finalize"))


def truth(text: str | None) -> bool:
    """A boolean query parameter: absent is false, present and empty is true (conversion.Convert_Slice_string_To_bool)."""
    if text is None:
        return False
    return text not in ("0", "f", "F", "false", "FALSE", "False")


def parse(request: Request) -> Target:
    """Never fails: what is no resource path is a Target with the lower-case method as verb and no resource."""
    path = request.path
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return Target(verb=request.method.lower())
    verb = _VERBS.get(request.method, "")
    if rest[0] in ("watch", "proxy"):
        if len(rest) < 2:
            return Target(verb=request.method.lower())
        verb, rest = rest[0], rest[1:]
    return _resource(request, verb, group, version, rest)


def _resource(request: Request, verb: str, group: str, version: str, parts: list[str]) -> Target:
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 1:
        namespace = parts[1]
        if len(parts) > 2 and parts[2] not in _OF_NAMESPACE:
            parts = parts[2:]
    resource = parts[0]
    name = parts[1] if len(parts) > 1 else ""
    subresource = parts[2] if len(parts) > 2 else ""
    rest = "/".join(parts[3:])
    if not name and verb == "get":
        verb = "watch" if "watch" in request.query and truth(request.param("watch")) else "list"
        name = name_in_selector(request.param("fieldSelector"))
    elif verb == "watch" and not name:
        name = name_in_selector(request.param("fieldSelector"))
    elif not name and verb == "delete":
        verb = "deletecollection"
    return Target(
        verb=verb, group=group, version=version, namespace=namespace, resource=resource, name=name, subresource=subresource, rest=rest
    )


def name_in_selector(text: str) -> str:
    """A list or watch of exactly one name is authorized as access to that name."""
    if "metadata.name" not in text:
        return ""
    try:
        selector = parse_fields(text)
    except (BadRequest, ValueError):
        return ""
    return selector.exact("metadata.name") or ""
