"""The field numbers of Kubernetes' protobuf messages, loaded when the first protobuf body comes or goes, and which message a kind is.

Reads edgekube/api/schema_data/protobuf.json.gz, made by packaging/compile_protobuf.py, which also says what the codes mean.
"""

import gzip
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib import resources
from typing import NamedTuple

import orjson

_META = "k8s.io.apimachinery.pkg.apis.meta"
_PACKAGES: Mapping[str, str] = {
    "": "k8s.io.api.core",
    "apps": "k8s.io.api.apps",
    "autoscaling": "k8s.io.api.autoscaling",
    "batch": "k8s.io.api.batch",
    "policy": "k8s.io.api.policy",
    "rbac.authorization.k8s.io": "k8s.io.api.rbac",
    "flowcontrol.apiserver.k8s.io": "k8s.io.api.flowcontrol",
    "internal.apiserver.k8s.io": "k8s.io.api.apiserverinternal",
    "apiextensions.k8s.io": "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions",
    "apiregistration.k8s.io": "k8s.io.kube_aggregator.pkg.apis.apiregistration",
    "meta.k8s.io": _META,
} | {
    f"{name}.k8s.io": f"k8s.io.api.{name}"
    for name in (
        "admission", "admissionregistration", "authentication", "authorization", "certificates", "coordination", "discovery", "events",
        "networking", "node", "resource", "scheduling", "storage", "storagemigration",
    )
}  # fmt: skip
# Kinds of meta/v1 that upstream registers in the versions of every group.
_EVERYWHERE = frozenset(
    ("CreateOptions", "DeleteOptions", "GetOptions", "ListOptions", "PatchOptions", "UpdateOptions", "Status", "WatchEvent",
     "APIGroup", "APIGroupList", "APIResourceList", "APIVersions")
)  # fmt: skip


class FieldSpec(NamedTuple):
    """One field of a message: its number, the code of its type, and whether JSON shows its fields in the parent."""

    number: int
    code: str
    inline: bool


class Table:
    """All messages, by number; names of messages are their full ones."""

    def __init__(self, names: list[str], messages: list[dict[str, list[int | str]]]) -> None:
        self.names = names
        self.numbers = {name: number for number, name in enumerate(names)}
        self._messages = messages

    def fields(self, number: int) -> Mapping[str, FieldSpec]:
        """JSON name -> field."""
        return {name: FieldSpec(int(spec[0]), str(spec[1]), len(spec) > 2) for name, spec in self._messages[number].items()}

    def definition(self, number: int) -> str:
        """The OpenAPI name of the message, as schema.py knows it."""
        name = (
            self.names[number].replace("kube_aggregator", "kube-aggregator").replace("apiextensions_apiserver", "apiextensions-apiserver")
        )
        return "io.k8s." + name.removeprefix("k8s.io.")


@cache
def table() -> Table:
    """The whole table: 5 ms and 1 MB, once."""
    data = orjson.loads(gzip.decompress(resources.files("edgekube.api").joinpath("schema_data", "protobuf.json.gz").read_bytes()))
    return Table(data["names"], data["messages"])


@lru_cache(maxsize=1024)  # bounded: the names come from clients
def find(api_version: str, kind: str) -> int | None:
    """The number of the message of a kind; None if it has none, as all custom resources."""
    group, _, version = api_version.rpartition("/")
    numbers = table().numbers
    package = _PACKAGES.get(group)
    if package is not None:
        found = numbers.get(f"{package}.{version}.{kind}")
        if found is not None:
            return found
        if kind == "PartialObjectMetadata" and package == _META:  # v1beta1 is an alias
            return numbers[f"{_META}.v1.{kind}"]
        if kind in _EVERYWHERE:
            return numbers[f"{_META}.v1.{kind}"]
    elif kind == "DeleteOptions":
        return numbers[f"{_META}.v1.{kind}"]
    return None
