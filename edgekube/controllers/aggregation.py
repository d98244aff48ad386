"""ClusterRole aggregation: the rules of a role with an aggregationRule are those of the roles it selects. Reads and writes clusterroles."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from edgekube.api import selectors
from edgekube.api.catalog import CLUSTER_ROLE
from edgekube.api.item import Item
from edgekube.api.selectors import Selector
from edgekube.api.types import Key, Obj
from edgekube.client.derived import Derived
from edgekube.controllers.base import DONE, Base, Maps, Owns, Result, Tools


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """`selectors` is None for a role that aggregates nothing."""

    selectors: tuple[Selector, ...] | None


class AggregationController(Base):
    name = "clusterrole-aggregation-controller"

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._roles = Derived(self.cache, CLUSTER_ROLE, _facts)

    def watches(self) -> Sequence[Owns | Maps]:
        return (Maps(CLUSTER_ROLE, self._of_role),)

    def _of_role(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        """Itself, and every role that selects it now or did before."""
        versions = [item for item in (old, new) if item is not None]
        for item in self.cache.list(CLUSTER_ROLE):
            chosen = self._roles(item).selectors
            if chosen is None:
                continue
            if any(item.key == v.key or any(selector.matches(v.labels) for selector in chosen) for v in versions):
                yield item.key

    async def reconcile(self, key: Key) -> Result:
        item = self.cache.get(CLUSTER_ROLE, key)
        chosen = self._roles(item).selectors if item is not None else None
        if item is None or chosen is None:
            return DONE
        sources = [
            role.decode()
            for role in sorted(self.cache.list(CLUSTER_ROLE), key=lambda role: role.name)
            if role.key != key and any(selector.matches(role.labels) for selector in chosen)
        ]
        role = item.decode()
        rules = plan_rules(sources)
        if (role.get("rules") or []) != rules:
            await self.client.update(CLUSTER_ROLE, role | {"rules": rules})
        return DONE


def _facts(item: Item) -> RoleFacts:
    aggregation = item.decode().get("aggregationRule")
    if not aggregation:
        return RoleFacts(None)
    chosen = aggregation.get("clusterRoleSelectors") or ()
    return RoleFacts(tuple(selectors.from_label_selector(selector) for selector in chosen))


def plan_rules(sources: Iterable[Obj]) -> list[Obj]:
    """All rules of `sources` in order, each once."""
    rules: list[Obj] = []
    for role in sources:
        for rule in role.get("rules") or ():
            if rule not in rules:
                rules.append(rule)
    return rules
