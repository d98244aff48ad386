"""Validation of metadata, the same for every kind. Pure; in upstream's words and order.

Source of the rules: k8s.io/apimachinery/pkg/api/validation/objectmeta.go and pkg/util/validation/validation.go.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgekube.api import problems, validate
from edgekube.api.kind import Kind
from edgekube.api.types import Obj
from edgekube.errors import Problem

_RBAC = "rbac.authorization.k8s.io"
_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")
_LENIENT_GROUPS = ("coordination.k8s.io", "events.k8s.io")  # judged by the generic rules alone, as custom resources are
_IMMUTABLE = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


def object_meta(kind: Kind, obj: Obj) -> Iterator[Problem]:
    """A new object's metadata; its name has been generated."""
    metadata = obj["metadata"]
    check = kind.validate_name or (validate.path_segment if kind.group == _RBAC else validate.subdomain)
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
            yield from (problems.invalid("metadata.namespace", namespace, message) for message in validate.label(namespace))
    yield from _common(kind, metadata)


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
    yield from _common(kind, metadata)


def _common(kind: Kind, metadata: Mapping[str, Any]) -> Iterator[Problem]:
    yield from validate.labels("metadata.labels", metadata.get("labels"))
    yield from validate.annotations("metadata.annotations", metadata.get("annotations"))
    yield from _owners(metadata.get("ownerReferences") or ())
    finalizers = metadata.get("finalizers") or ()
    for finalizer in finalizers:
        yield from (problems.invalid("metadata.finalizers", finalizer, message) for message in validate.qualified(finalizer))
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        why = "finalizer orphan and foregroundDeletion cannot be both set"
        yield problems.invalid("metadata.finalizers", list(finalizers), why)
    if kind.schema.startswith("io.k8s.api.") and kind.group not in _LENIENT_GROUPS:
        for index, finalizer in enumerate(finalizers):
            if "/" not in finalizer and finalizer not in _FINALIZERS:
                why = "name is neither a standard finalizer name nor is it fully qualified"
                yield problems.invalid(f"metadata.finalizers[{index}]", finalizer, why)


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
