"""Which Events are worth writing, pure: similar ones are folded together, repeated ones counted, a flood is cut off per object.

Source of the rules: client-go tools/record/events_cache.go. Three steps: more than 10 different messages of one kind within 10 minutes are
folded into one "(combined from similar events)"; an Event seen before becomes a count on the one that exists; each object of a
source has 25 Events at once and one more every 5 minutes.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

MAX_SIMILAR = 10
SIMILAR_SECONDS = 600.0
BURST = 25.0
REFILL_PER_SECOND = 1 / 300
REMEMBERED = 4096

V = TypeVar("V")


class Sighting(NamedTuple):
    """One thing that happened, without its time. `subject` identifies the object."""

    subject: Hashable
    type: str
    reason: str
    message: str
    action: str = ""


@dataclass(slots=True)
class Known:
    """An Event that was written before: what a repetition adds to."""

    name: str = ""
    count: int = 0
    first: str = ""


@dataclass(slots=True)
class _Group:
    seen_at: float
    messages: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class _Recent(Generic[V]):
    """A dict that forgets what was not used for longest."""

    def __init__(self) -> None:
        self._items: OrderedDict[Hashable, V] = OrderedDict()

    def get(self, key: Hashable) -> V | None:
        value = self._items.get(key)
        if value is not None:
            self._items.move_to_end(key)
        return value

    def set(self, key: Hashable, value: V) -> V:
        self._items[key] = value
        if len(self._items) > REMEMBERED:
            self._items.popitem(last=False)
        return value


class Correlator:
    """The memory of one source. `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._groups: _Recent[_Group] = _Recent()
        self._known: _Recent[Known] = _Recent()
        self._buckets: _Recent[_Bucket] = _Recent()

    def allow(self, subject: Hashable, now: float) -> bool:
        """Take a token of the object's bucket."""
        bucket = self._buckets.get(subject) or self._buckets.set(subject, _Bucket(BURST, now))
        bucket.tokens = min(BURST, bucket.tokens + (now - bucket.filled_at) * REFILL_PER_SECOND)
        bucket.filled_at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def correlate(self, sighting: Sighting, now: float) -> tuple[str, Known]:
        """The message to write and what is known of that Event already (count 0: nothing). The caller keeps `Known` up to date."""
        similar = (sighting.subject, sighting.type, sighting.reason, sighting.action)
        group = self._groups.get(similar)
        if group is None or now - group.seen_at > SIMILAR_SECONDS:
            group = self._groups.set(similar, _Group(now))
        group.seen_at = now
        group.messages.add(sighting.message)
        identity: Hashable
        if len(group.messages) < MAX_SIMILAR:
            message, identity = sighting.message, (*similar, sighting.message)
        else:
            group.messages.pop()
            message, identity = f"(combined from similar events): {sighting.message}", similar
        return message, self._known.get(identity) or self._known.set(identity, Known())
