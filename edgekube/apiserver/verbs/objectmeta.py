"""Validation of metadata, the same for every kind. Pure; in upstream's words and order.

Source of the rules: k8s.io/apimachinery/pkg/api/validation/objectmeta.go and pkg/util/validation/validation.go.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgekube.api import problems
from edgekube.api.kind import Kind
from edgekube.api.types import Obj
from edgekube.errors import Problem

MAX_ANNOTATIONS = 256 * 1024
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]\Z")
_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?\Z")
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric "
    "character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_QUALIFIED_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. "
    "'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_PREFIX_TEXT = " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_IMMUTABLE = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


def subdomain(name: str) -> Sequence[str]:
    found = ["must be no more than 253 bytes"] if len(name) > 253 else []
    return found if _SUBDOMAIN.match(name) else [*found, _SUBDOMAIN_TEXT]


def path_segment(name: str) -> Sequence[str]:
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{each}'" for each in "/%" if each in name]


def label(name: str) -> Sequence[str]:
    found = ["must be no more than 63 bytes"] if len(name) > 63 else []
    return found if _LABEL.match(name) else [*found, _LABEL_TEXT]


def qualified(name: str) -> Iterator[str]:
    """What is wrong with a label key, an annotation key or a finalizer."""
    parts = name.split("/")
    if len(parts) > 2:
        yield _QUALIFIED_TEXT.replace("name part", "a qualified name", 1) + _PREFIX_TEXT
        return
    if len(parts) == 2:
        if not parts[0]:
            yield "prefix part must be non-empty"
        else:
            for message in subdomain(parts[0]):
                yield f"prefix part {message}"
    last = parts[-1]
    if not last:
        yield "name part must be non-empty"
    elif len(last) > 63:
        yield "name part must be no more than 63 bytes"
    if not _QUALIFIED.match(last):
        yield _QUALIFIED_TEXT


def object_meta(kind: Kind, obj: Obj) -> Iterator[Problem]:
    """A new object's metadata; its name has been generated."""
    metadata = obj["metadata"]
    check = kind.validate_name or (path_segment if kind.group == "rbac.authorization.k8s.io" else subdomain)
    generate, name = metadata.get("generateName", ""), metadata.get("name", "")
    if generate:
        prefix = generate[:-1] + "a" if generate.endswith("-") else generate
        yield from (problems.invalid("metadata.generateName", generate, message) for message in check(prefix))
    if not name:
        yield problems.required("metadata.name", "name or generateName is required")
    else:
        yield from (problems.invalid("metadata.name", name, message) for message in check(name))
    if kind.namespaced:
        namespace = metadata.get("namespace", "")
        if not namespace:
            yield problems.required("metadata.namespace")
        else:
            yield from (problems.invalid("metadata.namespace", namespace, message) for message in label(namespace))
    yield from _common(metadata)


def object_meta_update(kind: Kind, new: Obj, old: Obj) -> Iterator[Problem]:
    """Metadata of an update, after `carry_over`."""
    metadata, before = new["metadata"], old["metadata"]
    if "deletionTimestamp" in before:
        extra = sorted(set(metadata.get("finalizers") or ()) - set(before.get("finalizers") or ()))
        if extra:
            shown = "[]string{" + ", ".join(f'"{name}"' for name in extra) + "}"
            why = f"no new finalizers can be added if the object is being deleted, found new finalizers {shown}"
            yield problems.forbidden("metadata.finalizers", why)
    for name in _IMMUTABLE:
        if metadata.get(name) != before.get(name):
            yield problems.invalid(f"metadata.{name}", metadata.get(name), "field is immutable")
    yield from _common(metadata)


def _common(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    for key, value in (metadata.get("labels") or {}).items():
        yield from (problems.invalid("metadata.labels", key, message) for message in qualified(key))
        if len(value) > 63:
            yield problems.invalid("metadata.labels", value, "must be no more than 63 bytes")
        if not _VALUE.match(value):
            yield problems.invalid("metadata.labels", value, _VALUE_TEXT)
    annotations = metadata.get("annotations") or {}
    for key in annotations:
        yield from (problems.invalid("metadata.annotations", key, message) for message in qualified(key.lower()))
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > MAX_ANNOTATIONS:
        yield problems.too_long("metadata.annotations", MAX_ANNOTATIONS)
    yield from _owners(metadata.get("ownerReferences") or ())
    finalizers = metadata.get("finalizers") or ()
    for finalizer in finalizers:
        yield from (problems.invalid("metadata.finalizers", finalizer, message) for message in qualified(finalizer))
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        why = "finalizer orphan and foregroundDeletion cannot be both set"
        yield problems.invalid("metadata.finalizers", list(finalizers), why)


def _owners(references: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    first = ""
    for reference in references:
        for name in ("apiVersion", "kind", "name", "uid"):
            if not reference.get(name):
                what = "version must not be empty" if name == "apiVersion" else "must not be empty"
                yield problems.invalid(f"metadata.ownerReferences.{name}", reference.get(name, ""), what)
        if reference.get("apiVersion") == "v1" and reference.get("kind") == "Event":
            yield problems.invalid("metadata.ownerReferences", reference, "/v1, Kind=Event is disallowed from being an owner")
        if reference.get("controller"):
            shown = f"{reference.get('kind')}/{reference.get('name')}"
            if first:
                why = f'Only one reference can have Controller set to true. Found "true" in references for {first} and {shown}'
                yield problems.invalid("metadata.ownerReferences", list(references), why)
            else:
                first = shown
