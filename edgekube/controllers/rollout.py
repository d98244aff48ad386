"""The arithmetic of a Deployment's rollout, pure: surge, unavailability, which ReplicaSet gets how many pods.

Source of the rules: pkg/controller/deployment/{rolling,sync}.go and its util/deployment_util.go.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgekube.api.types import Obj

REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
NOT_COPIED = frozenset(
    ("kubectl.kubernetes.io/last-applied-configuration", REVISION, HISTORY, DESIRED, MAXIMUM, "deprecated.deployment.rollback.to")
)
NO_LIMIT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class SetFacts:
    """A ReplicaSet as a rollout sees it."""

    name: str
    uid: str
    created: str
    replicas: int  # spec
    actual: int = 0  # status.replicas
    ready: int = 0
    available: int = 0
    terminating: int | None = None
    revision: int = 0
    desired: int | None = None  # what the Deployment wanted when it last scaled this set
    maximum: int | None = None
    generation: int = 0
    observed: int = 0
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class DeploymentFacts:
    """A Deployment as a rollout sees it."""

    replicas: int
    rolling: bool = True
    max_surge: int | str = "25%"
    max_unavailable: int | str = "25%"
    status_replicas: int = 0

    @property
    def surge(self) -> int:
        """Pods that may exist beyond `replicas`."""
        return fenceposts(self.max_surge, self.max_unavailable, self.replicas)[0] if self.rolling else 0

    @property
    def unavailable(self) -> int:
        """Pods that may be missing from `replicas`."""
        if not self.rolling or self.replicas == 0:
            return 0
        return min(fenceposts(self.max_surge, self.max_unavailable, self.replicas)[1], self.replicas)


def scaled(value: int | str, total: int, *, up: bool) -> int:
    """A number, or a percentage of `total` rounded as told."""
    if isinstance(value, int):
        return value
    exact = int(value.removesuffix("%")) * total
    return -(-exact // 100) if up else exact // 100


def fenceposts(max_surge: int | str, max_unavailable: int | str, replicas: int) -> tuple[int, int]:
    """Surge rounds up, unavailability down; both 0 would never move, so one pod may then be missing."""
    surge, unavailable = scaled(max_surge, replicas, up=True), scaled(max_unavailable, replicas, up=False)
    return (surge, unavailable) if surge or unavailable else (0, 1)


def set_facts(rs: Obj) -> SetFacts:
    about, status = rs["metadata"], rs.get("status") or {}
    annotations = about.get("annotations") or {}
    return SetFacts(
        name=about["name"],
        uid=about.get("uid", ""),
        created=about.get("creationTimestamp") or "",
        replicas=rs["spec"].get("replicas", 1),
        actual=status.get("replicas", 0),
        ready=status.get("readyReplicas", 0),
        available=status.get("availableReplicas", 0),
        terminating=status.get("terminatingReplicas"),
        revision=number(annotations.get(REVISION)) or 0,
        desired=number(annotations.get(DESIRED)),
        maximum=number(annotations.get(MAXIMUM)),
        generation=about.get("generation", 0),
        observed=status.get("observedGeneration", 0),
        deleting="deletionTimestamp" in about,
    )


def deployment_facts(deployment: Obj) -> DeploymentFacts:
    spec = deployment["spec"]
    strategy = spec.get("strategy") or {}
    limits = strategy.get("rollingUpdate") or {}
    return DeploymentFacts(
        replicas=spec.get("replicas", 1),
        rolling=strategy.get("type", "RollingUpdate") == "RollingUpdate",
        max_surge=limits.get("maxSurge", "25%"),
        max_unavailable=limits.get("maxUnavailable", "25%"),
        status_replicas=(deployment.get("status") or {}).get("replicas", 0),
    )


def number(text: str | None) -> int | None:
    """An annotation's number, None if it has none."""
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def total(sets: Sequence[SetFacts]) -> int:
    return sum(rs.replicas for rs in sets)


def active(sets: Sequence[SetFacts]) -> list[SetFacts]:
    return [rs for rs in sets if rs.replicas > 0]


def plan_new_replicas(deployment: DeploymentFacts, new: SetFacts, others: Sequence[SetFacts]) -> int:
    """How many pods the newest set may have now. `others` are the sets besides it."""
    if not deployment.rolling or new.replicas >= deployment.replicas:
        return deployment.replicas
    room = deployment.replicas + deployment.surge - total(others) - new.replicas
    if room <= 0:
        return new.replicas
    return new.replicas + min(room, deployment.replicas - new.replicas)


def plan_old_replicas(deployment: DeploymentFacts, new: SetFacts, old: Sequence[SetFacts]) -> Mapping[str, int]:
    """New sizes of old sets during a rolling update: first unhealthy pods go, then as many as availability allows. Oldest set first."""
    old = sorted(active(old), key=lambda rs: (rs.created, rs.name))
    minimum = deployment.replicas - deployment.unavailable
    budget = total(old) + new.replicas - minimum - (new.replicas - new.available)
    if not old or budget <= 0:
        return {}
    sizes: dict[str, int] = {rs.name: rs.replicas for rs in old}
    for rs in old:
        unhealthy = max(0, min(budget, rs.replicas - rs.available))
        sizes[rs.name] -= unhealthy
        budget -= unhealthy
    # A set that was just made smaller still shows what it had: never count more than it may keep (upstream does, and can dip for a moment).
    spare = sum(min(rs.available, rs.replicas) for rs in old) + min(new.available, new.replicas) - minimum
    for rs in old:
        if spare <= 0:
            break
        step = min(sizes[rs.name], spare)
        sizes[rs.name] -= step
        spare -= step
    return {rs.name: sizes[rs.name] for rs in old if sizes[rs.name] != rs.replicas}


def is_saturated(deployment: DeploymentFacts, new: SetFacts | None) -> bool:
    """The newest set has all pods, available."""
    return new is not None and new.desired == new.replicas == new.available == deployment.replicas


def is_scaling(deployment: DeploymentFacts, sets: Sequence[SetFacts]) -> bool:
    """The Deployment's size changed since its sets were last scaled."""
    return any(rs.desired is not None and rs.desired != deployment.replicas for rs in active(sets))


def plan_scale(deployment: DeploymentFacts, new: SetFacts | None, old: Sequence[SetFacts]) -> Mapping[str, int]:
    """Sizes after the Deployment was scaled: the only set takes all, several share in proportion, and a saturated new one ends the others.

    Every set that takes part is named, also those that keep their size: their annotations must follow.
    """
    everyone = [*old, *([new] if new else [])]
    if not everyone:
        return {}
    working = active(everyone)
    if len(working) <= 1:
        newest = max(old, key=lambda rs: (rs.created, rs.name)) if old else None
        target = working[0] if working else new or newest
        return {target.name: deployment.replicas} if target and target.replicas != deployment.replicas else {}
    if is_saturated(deployment, new):
        return {rs.name: 0 for rs in active(old)}
    return _proportional(deployment, working) if deployment.rolling else {}


def _proportional(deployment: DeploymentFacts, sets: Sequence[SetFacts]) -> Mapping[str, int]:
    allowed = deployment.replicas + deployment.surge if deployment.replicas > 0 else 0
    to_add = allowed - total(sets)
    # Growing, the larger and newer set comes first; shrinking, the larger and older one: it also takes what rounding leaves over.
    ordered = sorted(sets, key=lambda rs: (rs.created, rs.name), reverse=to_add > 0)
    ordered = sorted(ordered, key=lambda rs: -rs.replicas)
    sizes: dict[str, int] = {}
    added = 0
    for rs in ordered:
        share = _share(deployment, rs, to_add, added)
        sizes[rs.name] = rs.replicas + share
        added += share
    if to_add:
        first = ordered[0].name
        sizes[first] = max(0, sizes[first] + to_add - added)
    return sizes


def _share(deployment: DeploymentFacts, rs: SetFacts, to_add: int, added: int) -> int:
    if to_add == 0 or to_add == added:
        return 0
    rest = to_add - added
    fraction = _fraction(deployment, rs)
    return min(fraction, rest) if to_add > 0 else max(fraction, rest)


def _fraction(deployment: DeploymentFacts, rs: SetFacts) -> int:
    if deployment.replicas == 0:
        return -rs.replicas
    before = rs.maximum or deployment.status_replicas
    if not before:
        return 0
    grown = rs.replicas * (deployment.replicas + deployment.surge) / before
    return math.floor(grown + 0.5) - rs.replicas


def plan_cleanup(limit: int | None, old: Sequence[SetFacts]) -> Sequence[str]:
    """Names of the old sets beyond the history limit that are empty and settled, oldest revision first."""
    if limit is None or limit == NO_LIMIT:
        return ()
    alive = sorted((rs for rs in old if not rs.deleting), key=lambda rs: (rs.revision, rs.created, rs.name))
    surplus = alive[: max(0, len(alive) - limit)]
    return [rs.name for rs in surplus if rs.actual == 0 and rs.replicas == 0 and rs.generation <= rs.observed]


def with_size(rs: SetFacts, replicas: int) -> SetFacts:
    """What `rs` is right after it was scaled."""
    return replace(rs, replicas=replicas)


def plan_annotations(deployment: Mapping[str, str], current: Mapping[str, str], revision: int) -> dict[str, str]:
    """A new set's annotations: the Deployment's, its revision, and the revisions it had before."""
    planned = dict(current) | {name: value for name, value in deployment.items() if name not in NOT_COPIED}
    had = current.get(REVISION)
    if (number(had) or 0) >= revision:
        return planned
    planned[REVISION] = str(revision)
    if had is not None:
        planned[HISTORY] = _history(current.get(HISTORY, ""), had)
    return planned


def _history(history: str, revision: str, limit: int = 2000) -> str:
    """Comma-separated, the oldest dropped when it grows too long."""
    entries = [entry for entry in history.split(",") if entry] + [revision]
    while len(",".join(entries)) > limit and len(entries) > 1:
        entries.pop(0)
    return ",".join(entries)
