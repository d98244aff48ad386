"""What follows from the folder and the record: which file has which object, what is applied, what goes, what is wrong. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from edgekube.api.types import Obj
from edgekube.manifests.files import File, Ref

_FIRST = (
    "Namespace",
    "CustomResourceDefinition",
    "PriorityClass",
    "StorageClass",
    "ResourceQuota",
    "LimitRange",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "ConfigMap",
    "Secret",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "NetworkPolicy",
    "Service",
)
_LAST = ("APIService", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a file declared when it was last taken in."""

    sha256: str
    refs: frozenset[Ref]


Record = Mapping[str, Entry]


@dataclass(frozen=True, slots=True)
class Plan:
    """`apply` in order; `prune` in order; `held`: what would go, but seems to be declared by a file that can not be read; `owners`: the
    file of each object; `troubles`: what each file is told."""

    apply: Sequence[tuple[Ref, str, Obj]] = ()
    prune: Sequence[Ref] = ()
    held: Sequence[Ref] = ()
    owners: Mapping[Ref, str] = field(default_factory=dict)
    troubles: Mapping[str, str] = field(default_factory=dict)


def rank(ref: Ref) -> int:
    """Where a kind stands when things are made; they go the other way round."""
    if ref.kind in _FIRST:
        return _FIRST.index(ref.kind)
    return len(_FIRST) + (1 + _LAST.index(ref.kind) if ref.kind in _LAST else 0)


def plan_sync(files: Mapping[str, File], record: Record) -> Plan:
    """Decide. A file with a problem, or one that is busy, goes on declaring what the record says of it."""
    troubles = {name: file.problem for name, file in files.items() if file.problem}
    claims: dict[str, Iterable[Ref]] = {}
    for name, file in sorted(files.items()):
        before = record[name].refs if name in record else frozenset()
        if not (file.problem or file.busy) and not file.objects and before and file.sha256 == EMPTY:
            troubles[name] = "the file is empty: what it declared is kept; delete the file to remove that"
        claims[name] = before if name in troubles or file.busy else file.objects
    owners: dict[Ref, str] = {}
    for name, entry in sorted(record.items()):
        owners |= {ref: name for ref in entry.refs if ref in set(claims.get(name, ())) and ref not in owners}
    for name, refs in claims.items():
        for ref in refs:
            if owners.setdefault(ref, name) != name:
                also = f"{ref} is declared by {owners[ref]} already; this file's is not used"
                troubles[name] = f"{troubles[name]}; {also}" if name in troubles else also
    apply = [(ref, name, files[name].objects[ref]) for ref, name in owners.items() if ref in files[name].objects]
    gone = {ref for entry in record.values() for ref in entry.refs} - owners.keys()
    held = {ref for ref in gone if any(file.busy or (file.problem and ref.name in file.text) for file in files.values())}
    return Plan(
        apply=sorted(apply, key=lambda one: (rank(one[0]), one[1], one[0])),
        prune=sorted(gone - held, key=lambda ref: (-rank(ref), ref)),
        held=sorted(held),
        owners=owners,
        troubles=troubles,
    )


EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # sha256 of nothing


def record_of(plan: Plan, files: Mapping[str, File], record: Record, left: Iterable[Ref]) -> Record:
    """What is to be remembered once the plan is done; `left` could not be deleted yet, and stays with the file it was of."""
    refs: dict[str, set[Ref]] = {}
    for ref, name in plan.owners.items():
        refs.setdefault(name, set()).add(ref)
    for ref in (*plan.held, *left):
        refs.setdefault(next(name for name, entry in record.items() if ref in entry.refs), set()).add(ref)
    found = {}
    for name, mine in refs.items():
        file = files.get(name)
        taken = file is not None and not file.busy and not file.problem and file.sha256 != EMPTY
        digest = file.sha256 if file is not None and taken else record[name].sha256 if name in record else ""
        found[name] = Entry(digest, frozenset(mine))
    return found


def union(one: Record, other: Record) -> Record:
    """Both: what is written down before anything is done, so that nothing made is ever unknown."""
    found = dict(one)
    for name, entry in other.items():
        known = found.get(name)
        found[name] = entry if known is None else Entry(known.sha256, known.refs | entry.refs)
    return found
