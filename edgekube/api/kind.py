"""What a kind is: the declaration that generic code works from. Each file in `kinds/` builds one or a close family of these.

The generic verbs call the functions in upstream's order (k8s.io/apiserver/pkg/registry/rest):
create: default -> admission (mutate) -> prepare(obj, None) -> validate(obj, None) -> admission (validate) -> store
update: default -> admission (mutate) -> prepare(obj, old) -> validate(obj, old) -> admission (validate) -> store
status: same with prepare_status / validate_status. All functions are pure; `prepare`/`default` change `obj` in place, never `old`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgekube.api.types import Obj
from edgekube.errors import Problem


def _nothing(_obj: Obj) -> None:
    """No defaults beyond the schema's."""


def _no_prepare(_obj: Obj, _old: Obj | None) -> None:
    """Nothing to set or reset."""


def _no_problems(_obj: Obj, _old: Obj | None) -> Iterable[Problem]:
    return ()


@dataclass(frozen=True, slots=True)
class Column:
    """A printer column as Table shows it. `cell(obj, now)` returns str | int | list; `now` is epoch seconds for ages."""

    name: str
    cell: Callable[[Obj, float], Any]
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0  # > 0: only with -o wide


@dataclass(frozen=True, slots=True)
class Scale:
    """Where the scale subresource finds its numbers; `selector(obj)` returns the selector as a string."""

    replicas: tuple[str, ...] = ("spec", "replicas")
    status_replicas: tuple[str, ...] = ("status", "replicas")
    selector: Callable[[Obj], str] = lambda _obj: ""


@dataclass(frozen=True, slots=True)
class Apart:
    """A part of the object that is written on its own, through a subresource whose body is the whole object, as `status` is."""

    prepare: Callable[[Obj, Obj | None], None]
    validate: Callable[[Obj, Obj | None], Iterable[Problem]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One resource in one version. Hashable by identity of (group, version, plural)."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str = ""
    short: Sequence[str] = ()
    categories: Sequence[str] = ()
    namespaced: bool = True
    schema: str = ""  # definition name, e.g. "io.k8s.api.core.v1.Pod"; the compiled schema drives validation, patch and OpenAPI
    columns: Sequence[Column] = ()
    default: Callable[[Obj], None] = _nothing
    prepare: Callable[[Obj, Obj | None], None] = _no_prepare
    prepare_status: Callable[[Obj, Obj | None], None] = _no_prepare
    validate: Callable[[Obj, Obj | None], Iterable[Problem]] = _no_problems
    validate_status: Callable[[Obj, Obj | None], Iterable[Problem]] = _no_problems
    validate_name: Callable[[str], Sequence[str]] | None = None  # None: DNS subdomain; returns upstream's messages
    selectable: Mapping[str, Callable[[Obj], str]] = field(default_factory=dict)  # besides metadata.name and metadata.namespace
    has_status: bool = False
    has_generation: bool = False  # metadata.generation counts changes of anything but metadata and status
    scale: Scale | None = None
    subresources: Mapping[str, Sequence[str]] = field(default_factory=dict)  # e.g. {"log": ("get",), "eviction": ("create",)}: discovery
    apart: Mapping[str, Apart] = field(default_factory=dict)  # the subresources among them that write a part of the object
    verbs: Sequence[str] = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
    deprecated: str = ""  # the warning that every request about this version gets
    ephemeral: bool = False  # every write of this kind may live in memory only (Lease, Event)
    ephemeral_status: Callable[[Obj, Obj], bool] = lambda _new, _old: False  # a status update that need not reach the disk (heartbeats)
    grace_seconds: Callable[[Obj], int] | None = None  # kinds that end gracefully (Pod): the default grace of this object
    default_propagation: str = "Background"
    allow_create_on_update: bool = False
    unconditional_update: bool = True
    store_bucket: str = ""  # set when versions of one resource live in different groups (events): the bucket they share
    to_storage: Callable[[Obj], Obj] | None = None  # this version -> the stored version of the shared bucket; None: stored as it is
    from_storage: Callable[[Obj], Obj] | None = None  # the stored version -> this version

    def __hash__(self) -> int:
        return hash((self.group, self.version, self.plural))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kind) and (self.group, self.version, self.plural) == (other.group, other.version, other.plural)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def bucket(self) -> str:
        """The store bucket; versions of one resource share it."""
        if self.store_bucket:
            return self.store_bucket
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def list_kind(self) -> str:
        return f"{self.kind}List"
