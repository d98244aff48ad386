"""The small languages in which pods say where they want to be: node selector terms, pod affinity terms, spread constraints.

Parsed once per version of a pod, matched many times. A term that can not be understood matches nothing, as upstream has it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekube.api.selectors import Selector, from_label_selector

HOSTNAME = "kubernetes.io/hostname"


@dataclass(frozen=True, slots=True)
class NodeTerm:
    """All expressions and fields must hold; with none of either it matches nothing."""

    expressions: tuple[tuple[str, str, tuple[str, ...]], ...]
    fields: tuple[tuple[str, str, tuple[str, ...]], ...]

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        if not self.expressions and not self.fields:
            return False
        return all(holds(*expression, labels) for expression in self.expressions) and all(
            holds(*wanted, {"metadata.name": name}) for wanted in self.fields
        )

    def names(self) -> frozenset[str] | None:
        """The only node names that can match, if the term says so."""
        found = [frozenset(values) for key, operator, values in self.fields if key == "metadata.name" and operator == "In"]
        return frozenset.intersection(*found) if found else None


def holds(key: str, operator: str, values: Sequence[str], labels: Mapping[str, str]) -> bool:
    """One node selector requirement."""
    value = labels.get(key)
    if operator == "In":
        return value in values
    if operator == "NotIn":
        return value is None or value not in values
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    try:
        have, wanted = int(value or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return (operator == "Gt" and have > wanted) or (operator == "Lt" and have < wanted)


def node_terms(terms: Sequence[Mapping[str, Any]]) -> Sequence[NodeTerm]:
    return tuple(NodeTerm(_requirements(term.get("matchExpressions")), _requirements(term.get("matchFields"))) for term in terms)


def _requirements(entries: Sequence[Mapping[str, Any]] | None) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    return tuple((entry.get("key", ""), entry.get("operator", ""), tuple(entry.get("values") or ())) for entry in entries or ())


@dataclass(frozen=True, slots=True)
class PodTerm:
    """Pods this term speaks of, within one topology. `namespaces` None: those that `namespace_selector` finds."""

    topology: str
    selector: Selector
    namespaces: frozenset[str]
    namespace_selector: Selector

    def matches(self, namespace: str, labels: Mapping[str, str], namespaces: Mapping[str, Mapping[str, str]]) -> bool:
        """`namespaces` gives the labels of each namespace."""
        if namespace not in self.namespaces and not self.namespace_selector.matches(namespaces.get(namespace, {})):
            return False
        return self.selector.matches(labels)


def pod_terms(terms: Sequence[Mapping[str, Any]], namespace: str, labels: Mapping[str, str]) -> Sequence[PodTerm]:
    """`namespace` and `labels` are those of the pod that states the terms."""
    found = []
    for term in terms:
        named, chosen = frozenset(term.get("namespaces") or ()), term.get("namespaceSelector")
        if not named and chosen is None:
            named = frozenset((namespace,))
        wanted = _with_own(term.get("labelSelector"), term.get("matchLabelKeys"), "In", labels)
        wanted = _with_own(wanted, term.get("mismatchLabelKeys"), "NotIn", labels)
        found.append(PodTerm(term.get("topologyKey", ""), _selector(wanted), named, _selector(chosen)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class SpreadConstraint:
    """How evenly matching pods must lie over the domains of a topology."""

    topology: str
    max_skew: int
    hard: bool
    selector: Selector
    min_domains: int
    honor_affinity: bool
    honor_taints: bool


def spread_constraints(entries: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> Sequence[SpreadConstraint]:
    return tuple(
        SpreadConstraint(
            topology=entry.get("topologyKey", ""),
            max_skew=int(entry.get("maxSkew") or 1),
            hard=entry.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule",
            selector=_selector(_with_own(entry.get("labelSelector"), entry.get("matchLabelKeys"), "In", labels)),
            min_domains=int(entry.get("minDomains") or 1),
            honor_affinity=entry.get("nodeAffinityPolicy", "Honor") == "Honor",
            honor_taints=entry.get("nodeTaintsPolicy", "Ignore") == "Honor",
        )
        for entry in entries
    )


def _with_own(
    selector: Mapping[str, Any] | None, keys: Sequence[str] | None, operator: str, labels: Mapping[str, str]
) -> Mapping[str, Any] | None:
    """The selector narrowed to (or away from) the values that the stating pod has itself under `keys`."""
    more = [{"key": key, "operator": operator, "values": [labels[key]]} for key in keys or () if key in labels]
    if selector is None or not more:
        return selector
    return {**selector, "matchExpressions": [*(selector.get("matchExpressions") or ()), *more]}


def _selector(selector: Mapping[str, Any] | None) -> Selector:
    try:
        return from_label_selector(selector)
    except ValueError:
        return from_label_selector(None)
