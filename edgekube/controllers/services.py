"""What the two endpoint controllers share: the facts of a Service, which ports a pod gives it, and which Services a change concerns."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgekube.api import selectors
from edgekube.api.catalog import POD, SERVICE
from edgekube.api.item import Item
from edgekube.api.selectors import Selector
from edgekube.api.types import Key, Obj
from edgekube.client.cache import Cache
from edgekube.controllers.pods import PodFacts
from edgekube.controllers.topology import wants_hints

IPV4, IPV6 = "IPv4", "IPv6"
_SELECTOR = "selector-pair"
HEADLESS = "service.kubernetes.io/headless"
TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """A Service as endpoints need it. `selector` is None when somebody else makes its endpoints."""

    key: Key
    uid: str
    selector: Selector | None
    ports: tuple[Mapping[str, object], ...]
    headless: bool
    has_ip: bool
    publish_unready: bool
    families: tuple[str, ...]
    labels: Mapping[str, str]
    created: str
    distribution: str
    deleting: bool
    topology: bool = False  # hints by topology-mode: Auto, which go before those of `distribution`


def service_facts(item: Item) -> ServiceFacts:
    service = item.decode()
    spec, about = service["spec"], service["metadata"]
    ip = spec.get("clusterIP", "")
    chosen = spec.get("selector")
    watched = bool(chosen) and spec.get("type") != "ExternalName"
    return ServiceFacts(
        key=item.key,
        uid=item.uid,
        selector=selectors.from_map(chosen) if watched else None,
        ports=tuple(spec.get("ports") or ()),
        headless=ip == "None",
        has_ip=ip not in ("", "None"),
        publish_unready=bool(spec.get("publishNotReadyAddresses")),
        families=tuple(spec.get("ipFamilies") or (IPV6 if ":" in ip else IPV4,)),
        labels=item.labels,
        created=about.get("creationTimestamp") or "",
        distribution=spec.get("trafficDistribution") or "",
        topology=wants_hints(about.get("annotations") or {}),
        deleting=item.deleting,
    )


def family(address: str) -> str:
    return IPV6 if ":" in address else IPV4


def belongs(pod: PodFacts, *, include_terminating: bool) -> bool:
    """Whether the pod is an endpoint at all, ready or not."""
    return not pod.terminal and bool(pod.ips) and (include_terminating or not pod.deleting)


def hostname(pod: PodFacts, service: ServiceFacts) -> str:
    """The name under which the Service's DNS shows this pod, "" for none."""
    return pod.hostname if pod.subdomain == service.key.name else ""


def port_number(pod: PodFacts, port: Mapping[str, object]) -> int | None:
    """The number of a Service port on this pod; None if the pod has no port of that name and protocol."""
    target = port.get("targetPort") or port.get("port")
    protocol = port.get("protocol", "TCP")
    if isinstance(target, int):
        return target
    return next((number for name, its, number in pod.ports if name == target and its == protocol), None)


def add_selector_index(cache: Cache) -> None:
    """Lets `pod_services` ask only Services that may select a pod: found by one pair of their selector."""
    cache.add_index(SERVICE, _SELECTOR, _selector_pair)


def _selector_pair(item: Item) -> tuple[str, ...]:
    chosen = (item.decode().get("spec") or {}).get("selector") if b'"selector":' in item.raw else None
    return (_pair(item.namespace, *min(chosen.items())),) if chosen else ()


def _pair(namespace: str, name: str, value: str) -> str:
    return f"{namespace}/{name}={value}"


def pod_services(cache: Cache, facts: Callable[[Item], ServiceFacts], items: Iterable[Item | None]) -> set[Key]:
    """The Services that select any of these versions of a pod. Costs what the pod has labels, not what there are Services."""
    found: set[Key] = set()
    for item in items:
        if item is None:
            continue
        for name, value in item.labels.items():
            for service in cache.by_index(SERVICE, _SELECTOR, _pair(item.namespace, name, value)):
                if service.key not in found:
                    selector = facts(service).selector
                    if selector is not None and selector.matches(item.labels):
                        found.add(service.key)
    return found


def selected(cache: Cache, service: ServiceFacts) -> Sequence[Item]:
    return () if service.selector is None else cache.list(POD, service.key.namespace, service.selector)


class TriggerTimes:
    """When what a Service's endpoints show began to be so: the earliest news since the last look (for latency measurements)."""

    def __init__(self) -> None:
        self._seen: dict[Key, tuple[str, dict[str, str]]] = {}

    def compute(self, service: ServiceFacts, pods: Iterable[PodFacts]) -> str:
        """The earliest new readiness or the Service's creation; "" when nothing is new."""
        old_service, old_pods = self._seen.get(service.key, ("", {}))
        times = {pod.key.name: pod.ready_since for pod in pods if pod.ready_since}
        news = [time for name, time in times.items() if time > old_pods.get(name, "")]
        if service.created > old_service:
            news.append(service.created)
        self._seen[service.key] = (max(old_service, service.created), times)
        return min(news, default="")

    def forget(self, key: Key) -> None:
        self._seen.pop(key, None)


def owned_by(obj: Obj, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in obj["metadata"].get("ownerReferences") or ())
