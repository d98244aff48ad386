"""RBAC rules as data to match: one compiled form of a PolicyRule, what it covers, and who a subject means. Pure.

Wildcards: `*` in verbs, groups, resources; `*/scale` is the scale of every resource; a non-resource URL may end in `*`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekube.apiserver.identity import User

SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Rule:
    """One PolicyRule. Empty `names` means every name."""

    verbs: frozenset[str]
    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    urls: tuple[str, ...] = ()

    def covers_verb(self, verb: str) -> bool:
        return "*" in self.verbs or verb in self.verbs

    def covers_resource(self, verb: str, group: str, resource: str, subresource: str) -> bool:
        """Whether some object of the resource is covered: names are looked at separately."""
        if not self.resources or not self.covers_verb(verb):
            return False
        if "*" not in self.groups and group not in self.groups:
            return False
        combined = f"{resource}/{subresource}" if subresource else resource
        if "*" in self.resources or combined in self.resources:
            return True
        return bool(subresource) and f"*/{subresource}" in self.resources

    def covers_url(self, verb: str, path: str) -> bool:
        return self.covers_verb(verb) and any(url_covers(url, path) for url in self.urls)

    def contains(self, other: "Rule") -> bool:
        """Whether everything `other` (a rule for one thing: see `pieces`) allows is allowed here too."""
        if not all(self.covers_verb(verb) for verb in other.verbs):
            return False
        if other.urls:
            return all(any(url_covers(mine, url) for mine in self.urls) for url in other.urls)
        if "*" not in self.groups and not other.groups <= self.groups:
            return False
        if not all(self._contains_resource(resource) for resource in other.resources):
            return False
        if not other.names:
            return not self.names
        return not self.names or other.names <= self.names

    def _contains_resource(self, resource: str) -> bool:
        if "*" in self.resources or resource in self.resources:
            return True
        _, slash, subresource = resource.partition("/")
        return bool(slash) and f"*/{subresource}" in self.resources

    def pieces(self) -> Iterable["Rule"]:
        """This rule as rules for one verb and one thing each, in upstream's order."""
        for group in sorted(self.groups):
            for resource in sorted(self.resources):
                for verb in sorted(self.verbs):
                    for name in sorted(self.names) or ("",):
                        names = frozenset((name,)) if name else frozenset[str]()
                        yield Rule(frozenset((verb,)), frozenset((group,)), frozenset((resource,)), names)
        for url in self.urls:
            for verb in sorted(self.verbs):
                yield Rule(frozenset((verb,)), urls=(url,))

    def to_json(self) -> dict[str, Any]:
        """A PolicyRule, as users see it."""
        fields = {"verbs": self.verbs, "apiGroups": self.groups, "resources": self.resources, "resourceNames": self.names}
        rule: dict[str, Any] = {name: sorted(values) for name, values in fields.items() if values}
        return rule | ({"nonResourceURLs": list(self.urls)} if self.urls else {})


def compile_rules(rules: Sequence[Mapping[str, Any]] | None) -> tuple[Rule, ...]:
    """The rules of a Role or ClusterRole, ready to match."""
    return tuple(
        Rule(
            verbs=frozenset(rule.get("verbs") or ()),
            groups=frozenset(rule.get("apiGroups") or ()),
            resources=frozenset(rule.get("resources") or ()),
            names=frozenset(rule.get("resourceNames") or ()),
            urls=tuple(rule.get("nonResourceURLs") or ()),
        )
        for rule in rules or ()
    )


def url_covers(pattern: str, path: str) -> bool:
    """`*` covers all, `/healthz/*` everything below."""
    if pattern in ("*", path):
        return True
    return pattern.endswith("*") and path.startswith(pattern.rstrip("*"))


def subject_keys(user: User) -> list[tuple[str, str]]:
    """Under which keys bindings that mean this user are found."""
    return [("User", user.name), *(("Group", group) for group in user.groups)]


def subject_key(subject: Mapping[str, Any], binding_namespace: str) -> tuple[str, str] | None:
    """The key a subject of a binding is found under; None for one that means nobody."""
    kind = subject.get("kind", "")
    if kind == "ServiceAccount":
        namespace = subject.get("namespace") or binding_namespace
        return ("User", f"{SERVICE_ACCOUNT_PREFIX}{namespace}:{subject.get('name', '')}") if namespace else None
    return (kind, subject.get("name", "")) if kind in ("User", "Group") else None


def describe_subject(subject: Mapping[str, Any], binding_namespace: str) -> str:
    """As upstream's reasons name a subject."""
    if subject.get("kind") == "ServiceAccount":
        return f'ServiceAccount "{subject.get("name", "")}/{subject.get("namespace") or binding_namespace}"'
    return f'{subject.get("kind", "")} "{subject.get("name", "")}"'


def uncovered(wanted: Iterable[Rule], owned: Sequence[Rule]) -> list[Rule]:
    """The pieces of `wanted` that no rule of `owned` contains: what would be an escalation."""
    return [piece for rule in wanted for piece in rule.pieces() if not any(mine.contains(piece) for mine in owned)]


def compact(pieces: Iterable[Rule]) -> list[Rule]:
    """Join pieces that differ only in the verb, as upstream shows them in refusals."""
    verbs: dict[tuple[Any, ...], set[str]] = {}
    for piece in pieces:
        verbs.setdefault((piece.groups, piece.resources, piece.names, piece.urls), set()).update(piece.verbs)
    return [Rule(frozenset(found), *key) for key, found in verbs.items()]


def show(rule: Rule) -> str:
    """One rule as refusals print it: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`."""
    parts = []
    for title, values in (
        ("APIGroups", sorted(rule.groups)),
        ("Resources", sorted(rule.resources)),
        ("ResourceNames", sorted(rule.names)),
        ("NonResourceURLs", rule.urls),
        ("Verbs", sorted(rule.verbs)),
    ):
        if values:
            parts.append(f"{title}:[" + ", ".join(f'"{value}"' for value in values) + "]")
    return "{" + ", ".join(parts) + "}"
