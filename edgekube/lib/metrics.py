"""The process's metrics: one registry, names that Prometheus users know, labels from closed sets.

Declared where they are measured (`REQUESTS = counter(...)` at module level) and shown by `render`. prometheus_client does the work;
its default collectors are replaced by our own registry, so that `/metrics` has no series twice.
"""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

REGISTRY = CollectorRegistry(auto_describe=True)
CONTENT_TYPE = CONTENT_TYPE_LATEST


def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
    return Counter(name, text, labels, registry=REGISTRY)


def gauge(name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
    return Gauge(name, text, labels, registry=REGISTRY)


def histogram(name: str, text: str, labels: Sequence[str] = (), *, buckets: Sequence[float]) -> Histogram:
    return Histogram(name, text, labels, buckets=tuple(buckets), registry=REGISTRY)


def render() -> bytes:
    """The text page for a scrape."""
    return generate_latest(REGISTRY)
