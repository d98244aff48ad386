"""Who has which front: two Services (or a host port) may claim one, the oldest has it and the next takes over when it goes. Pure.

Every operation costs what the changed Service has, never what the cluster has.
"""

from collections.abc import Iterable
from typing import NamedTuple

from edgekube.api.types import Key
from edgekube.proxy.model import Front, Target, Targets


class Claim(NamedTuple):
    """Claims sort by age, then name."""

    since: str
    owner: Key
    target: Target


class Book:
    """All claims."""

    def __init__(self) -> None:
        self._claims: dict[Front, list[Claim]] = {}
        self._fronts: dict[Key, tuple[Front, ...]] = {}

    def __contains__(self, owner: Key) -> bool:
        return owner in self._fronts

    def fronts(self, owner: Key) -> tuple[Front, ...]:
        return self._fronts.get(owner, ())

    def put(self, owner: Key, since: str, targets: Targets) -> None:
        """Replace everything that `owner` claims; {} forgets it."""
        before = self._fronts.pop(owner, ())
        for front in before:
            left = [claim for claim in self._claims[front] if claim.owner != owner]
            if left:
                self._claims[front] = left
            else:
                del self._claims[front]
        for front, target in targets.items():
            claims = self._claims.setdefault(front, [])
            claims.append(Claim(since, owner, target))
            if len(claims) > 1:
                claims.sort(key=lambda claim: claim[:2])
        if targets:
            self._fronts[owner] = tuple(targets)

    def get(self, fronts: Iterable[Front]) -> dict[Front, Target]:
        """What holds for these fronts now."""
        return {front: self._claims[front][0].target for front in fronts if front in self._claims}

    def all(self) -> dict[Front, Target]:
        return {front: claims[0].target for front, claims in self._claims.items()}
