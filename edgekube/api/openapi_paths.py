"""The addresses of a kind as OpenAPI paths: which verbs it has, what goes in and what comes out.

Clients read three things here: `x-kubernetes-action` and `x-kubernetes-group-version-kind` of each operation, and whether PATCH takes
`dryRun` and `fieldValidation`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from edgekube.api import discovery
from edgekube.api.kind import Kind
from edgekube.api.types import Obj

_JSON = ("application/json", "application/yaml")
_PATCHES = (
    "application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml",
)  # fmt: skip
_STATUS = "io.k8s.apimachinery.pkg.apis.meta.v1.Status"
_DELETE_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
_PATCH = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch"
_BODIES = {"patch": _PATCH, "delete": _DELETE_OPTIONS, "deletecollection": _DELETE_OPTIONS}
_QUERY: Mapping[str, tuple[str, str]] = {  # name -> type, what it does
    "allowWatchBookmarks": ("boolean", "Whether a watch may send BOOKMARK events."),
    "continue": ("string", "The token of the page before, to get the next page of a list."),
    "dryRun": ("string", "With All, the request is carried out but nothing is stored."),
    "fieldManager": ("string", "The name of who makes this change, for managedFields."),
    "fieldSelector": ("string", "Only objects whose fields match."),
    "fieldValidation": ("string", "What becomes of unknown or duplicate fields: Ignore, Warn or Strict."),
    "force": ("boolean", "An apply takes over fields that others manage."),
    "gracePeriodSeconds": ("integer", "How long the object may take to end."),
    "labelSelector": ("string", "Only objects whose labels match."),
    "limit": ("integer", "At most that many items in one answer."),
    "orphanDependents": ("boolean", "Deprecated: use propagationPolicy."),
    "pretty": ("string", "With true, the answer is indented."),
    "propagationPolicy": ("string", "What becomes of dependents: Orphan, Background or Foreground."),
    "resourceVersion": ("string", "How fresh the answer must be."),
    "resourceVersionMatch": ("string", "How resourceVersion is meant for lists."),
    "sendInitialEvents": ("boolean", "A watch begins with the present state."),
    "timeoutSeconds": ("integer", "When the answer must end."),
    "watch": ("boolean", "Stream changes instead of answering with a list."),
}
_LIST = (
    "allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion", "resourceVersionMatch",
    "sendInitialEvents", "timeoutSeconds", "watch",
)  # fmt: skip
_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_DELETE = ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")
_VERBS: Mapping[str, tuple[str, str, str, Sequence[str]]] = {  # verb -> method, action, word of the operation id, query
    "list": ("get", "list", "list", _LIST),
    "create": ("post", "post", "create", _WRITE),
    "deletecollection": ("delete", "deletecollection", "deleteCollection", (*_LIST[1:7], *_DELETE)),
    "get": ("get", "get", "read", ()),
    "update": ("put", "put", "replace", _WRITE),
    "patch": ("patch", "patch", "patch", (*_WRITE, "force")),
    "delete": ("delete", "delete", "delete", _DELETE),
}
_EVERYWHERE = "ForAllNamespaces"
_COLLECTION, _ITEM = ("list", "create", "deletecollection"), ("get", "update", "patch", "delete")


def paths(kind: Kind, version: int, spoken: Mapping[str, str]) -> dict[str, Any]:
    """Every path of `kind`, for OpenAPI `version` 2 or 3. `spoken` names the definitions of kinds that subresources speak."""
    writer = _Writer(kind, version)
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    scoped = f"{root}/namespaces/{{namespace}}" if kind.namespaced else root
    scope = ("namespace",) if kind.namespaced else ()
    found: dict[str, Any] = {}
    gvk = (kind.group, kind.version, kind.kind)
    found[f"{scoped}/{kind.plural}"] = writer.item(scope, [(verb, gvk, kind.schema, "") for verb in _COLLECTION if verb in kind.verbs])
    if kind.namespaced and "list" in kind.verbs:
        found[f"{root}/{kind.plural}"] = writer.item((), [("list", gvk, kind.schema, _EVERYWHERE)])
    named = [(verb, gvk, kind.schema, "") for verb in _ITEM if verb in kind.verbs]
    if named:
        found[f"{scoped}/{kind.plural}/{{name}}"] = writer.item((*scope, "name"), named)
    for name, (group, of, spoken_kind), verbs in discovery.subresources(kind):
        schema = spoken.get(spoken_kind, kind.schema if spoken_kind == kind.kind else "")
        below = [(verb, (group, of, spoken_kind), schema, name.capitalize()) for verb in verbs if verb in _VERBS]
        found[f"{scoped}/{kind.plural}/{{name}}/{name}"] = writer.item((*scope, "name"), below)
    return {path: item for path, item in found.items() if len(item) > 1}


_Operation = tuple[str, tuple[str, str, str], str, str]  # verb, (group, version, kind), definition or "", suffix of the id


class _Writer:
    """Writes operations in the form of one OpenAPI version."""

    def __init__(self, kind: Kind, version: int) -> None:
        self._kind = kind
        self._v3 = version == 3
        group = kind.group.split(".", 1)[0] or "core"
        self._tag = f"{group}_{kind.version}"
        self._group = f"{group.capitalize()}{kind.version.capitalize()}"

    def item(self, variables: Sequence[str], operations: Sequence[_Operation]) -> Obj:
        item: Obj = {_VERBS[operation[0]][0]: self._operation(*operation) for operation in operations}
        item["parameters"] = [self._parameter(name, "path", "string", f"The {name} of the object.") for name in variables]
        item["parameters"].append(self._query("pretty"))
        return item

    def _operation(self, verb: str, gvk: tuple[str, str, str], schema: str, suffix: str) -> Obj:
        _, action, word, query = _VERBS[verb]
        connect = not schema
        result = _STATUS if verb in ("delete", "deletecollection") else f"{schema}List" if verb == "list" else schema
        body = "" if connect else {"create": schema, "update": schema}.get(verb, _BODIES.get(verb, ""))
        parameters = [self._query(name) for name in sorted(query)] if not connect else []
        if body and not self._v3:
            shape: Obj = {"type": "object"} if body == _PATCH else {"$ref": f"#/definitions/{body}"}
            parameters.insert(0, {"name": "body", "in": "body", "required": verb in ("create", "update", "patch"), "schema": shape})
        operation: Obj = {
            "description": f"{'connect' if connect else word} {gvk[2]}",
            "tags": [self._tag],
            "operationId": self._id(f"connect{_VERBS[verb][0].capitalize()}" if connect else word, suffix),
            "parameters": parameters,
            "x-kubernetes-action": "connect" if connect else action,
            "x-kubernetes-group-version-kind": {"group": gvk[0], "version": gvk[1], "kind": gvk[2]},
        }
        media = _PATCHES if verb == "patch" else _JSON
        return operation | self._bodies(body, result, media)

    def _id(self, word: str, suffix: str) -> str:
        scope = "Namespaced" if self._kind.namespaced and suffix != _EVERYWHERE else ""
        return f"{word}{self._group}{scope}{self._kind.kind}{suffix}"

    def _bodies(self, body: str, result: str, media: Sequence[str]) -> Obj:
        ok: Obj = {"description": "OK"}
        if not self._v3:
            if result:
                ok["schema"] = {"$ref": f"#/definitions/{result}"}
            return {"consumes": list(media), "produces": list(_JSON), "responses": {"200": ok}}
        if result:
            ok["content"] = {kind: {"schema": {"$ref": f"#/components/schemas/{result}"}} for kind in _JSON}
        found: Obj = {"responses": {"200": ok}}
        if body:
            schema = {"type": "object"} if body == _PATCH else {"$ref": f"#/components/schemas/{body}"}
            found["requestBody"] = {"content": {kind: {"schema": schema} for kind in media}}
        return found

    def _query(self, name: str) -> Obj:
        kind, text = _QUERY[name]
        return self._parameter(name, "query", kind, text)

    def _parameter(self, name: str, place: str, kind: str, text: str) -> Obj:
        typed: Obj = {"schema": {"type": kind, "uniqueItems": True}} if self._v3 else {"type": kind, "uniqueItems": True}
        return {"name": name, "in": place, "description": text} | typed | ({"required": True} if place == "path" else {})
