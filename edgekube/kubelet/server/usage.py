"""What runs and what it uses: /stats/summary (metrics-server, kubectl top), /metrics/resource and /metrics/cadvisor (Prometheus)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edgekube.kubelet.runtime.protocol import ContainerInfo, ContainerStats, Runtime
from edgekube.kubelet.server.protocol import KnownPod, NodeStats, Pods
from edgekube.lib.clock import Clock, rfc3339


@dataclass(frozen=True, slots=True)
class Sample:
    """One running container and its usage."""

    pod: KnownPod
    info: ContainerInfo
    stats: ContainerStats
    at: datetime


class Usage:
    """Reads cgroup files when asked; CPU rates come from the difference to the previous question."""

    def __init__(self, *, node_name: str, pods: Pods, runtime: Runtime, node: NodeStats | None, clock: Clock) -> None:
        self._node_name, self._pods, self._runtime, self._node, self._clock = node_name, pods, runtime, node, clock
        self._before: dict[str, tuple[float, int]] = {}
        self._rates: dict[str, int] = {}

    async def samples(self) -> list[Sample]:
        """All running containers of known pods."""
        known = {pod.ref.uid: pod for pod in self._pods.pods()}
        found = []
        for info in await self._runtime.containers():
            if info.state != "running" or info.pod.uid not in known:
                continue
            stats = await self._runtime.stats(info.id)
            if stats is not None:
                found.append(Sample(known[info.pod.uid], info, stats, self._clock.now()))
        self._rate(found)
        return found

    def _rate(self, samples: Sequence[Sample]) -> None:
        """nanocores, from at least 200 ms apart; 0 at the first look."""
        now = self._clock.monotonic()
        alive = {sample.info.id for sample in samples}
        self._before = {key: value for key, value in self._before.items() if key in alive}
        self._rates = {key: value for key, value in self._rates.items() if key in alive}
        for sample in samples:
            key, used = sample.info.id, sample.stats.cpu_nanoseconds
            then, before = self._before.get(key, (now, used))
            if now - then >= 0.2:
                self._rates[key] = max(0, int((used - before) / (now - then)))
            if key not in self._before or now - then >= 0.2:
                self._before[key] = (now, used)

    async def summary(self, *, only_cpu_and_memory: bool = False) -> dict[str, Any]:
        """The Summary object of the kubelet's stats API."""
        samples = await self.samples()
        node = {"nodeName": self._node_name, **(await self._node.node() if self._node is not None else {})}
        pods = []
        for pod in self._pods.pods():
            mine = [sample for sample in samples if sample.pod.ref.uid == pod.ref.uid]
            if mine:
                pods.append(await self._pod(pod, mine, only_cpu_and_memory=only_cpu_and_memory))
        return {"node": node, "pods": pods}

    async def _pod(self, pod: KnownPod, samples: Sequence[Sample], *, only_cpu_and_memory: bool) -> dict[str, Any]:
        at = rfc3339(samples[0].at)
        started = (pod.obj.get("status") or {}).get("startTime") or rfc3339(samples[0].info.created_at)
        entry: dict[str, Any] = {
            "podRef": {"name": pod.ref.name, "namespace": pod.ref.namespace, "uid": pod.ref.uid},
            "startTime": started,
            "containers": [self._container(sample) for sample in samples],
            "cpu": {
                "time": at,
                "usageNanoCores": sum(self._rates.get(sample.info.id, 0) for sample in samples),
                "usageCoreNanoSeconds": sum(sample.stats.cpu_nanoseconds for sample in samples),
            },
            "memory": {
                "time": at,
                "usageBytes": sum(sample.stats.memory_usage for sample in samples),
                "workingSetBytes": sum(sample.stats.memory_working_set for sample in samples),
                "rssBytes": sum(sample.stats.memory_rss for sample in samples),
            },
            "process_stats": {"process_count": sum(sample.stats.pids for sample in samples)},
        }
        if self._node is not None and not only_cpu_and_memory:
            if volumes := await self._node.volumes(pod):
                entry["volume"] = list(volumes)
            if network := await self._node.network(pod):
                entry["network"] = network
        return entry

    def _container(self, sample: Sample) -> dict[str, Any]:
        at = rfc3339(sample.at)
        return {
            "name": sample.info.name,
            "startTime": rfc3339(sample.info.started_at or sample.info.created_at),
            "cpu": {
                "time": at,
                "usageNanoCores": self._rates.get(sample.info.id, 0),
                "usageCoreNanoSeconds": sample.stats.cpu_nanoseconds,
            },
            "memory": {
                "time": at,
                "usageBytes": sample.stats.memory_usage,
                "workingSetBytes": sample.stats.memory_working_set,
                "rssBytes": sample.stats.memory_rss,
            },
        }

    async def resource_metrics(self) -> str:
        """Text page of /metrics/resource."""
        samples = await self.samples()
        node = await self._node.node() if self._node is not None else {}
        lines = list(_resource_lines(samples, node))
        return "\n".join(lines) + "\n"

    async def container_metrics(self) -> str:
        """Text page of /metrics/cadvisor: the series that dashboards use."""
        samples = await self.samples()
        lines: list[str] = []
        for name, kind, text, value in (
            ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", _cpu),
            ("container_memory_usage_bytes", "gauge", "Current memory usage in bytes.", lambda s: str(s.memory_usage)),
            ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", lambda s: str(s.memory_working_set)),
            ("container_memory_rss", "gauge", "Size of RSS in bytes.", lambda s: str(s.memory_rss)),
            ("container_processes", "gauge", "Number of processes running inside the container.", lambda s: str(s.pids)),
        ):
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{{{_cadvisor_labels(sample.info)}}} {value(sample.stats)}" for sample in samples]
        return "\n".join(lines) + "\n"


def _cpu(stats: ContainerStats) -> str:
    return f"{stats.cpu_nanoseconds / 1e9:.9g}"


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _labels(info: ContainerInfo) -> str:
    return f'container="{info.name}",namespace="{info.pod.namespace}",pod="{info.pod.name}"'


def _cadvisor_labels(info: ContainerInfo) -> str:
    return (
        f'container="{info.name}",id="/{info.id}",image="{_quoted(info.image)}",name="{info.id}",'
        f'namespace="{info.pod.namespace}",pod="{info.pod.name}"'
    )


def _resource_lines(samples: Sequence[Sample], node: Mapping[str, Any]) -> Iterator[str]:
    def head(name: str, kind: str, text: str) -> Iterator[str]:
        yield f"# HELP {name} [STABLE] {text}"
        yield f"# TYPE {name} {kind}"

    yield from head("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the container in core-seconds")
    yield from (f"container_cpu_usage_seconds_total{{{_labels(s.info)}}} {_cpu(s.stats)}" for s in samples)
    yield from head("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes")
    yield from (f"container_memory_working_set_bytes{{{_labels(s.info)}}} {s.stats.memory_working_set}" for s in samples)
    yield from head("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds")
    for s in samples:
        yield f"container_start_time_seconds{{{_labels(s.info)}}} {(s.info.started_at or s.info.created_at).timestamp():.3f}"
    if node.get("cpu"):
        yield from head("node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds")
        yield f"node_cpu_usage_seconds_total {node['cpu'].get('usageCoreNanoSeconds', 0) / 1e9:.9g}"
    if node.get("memory"):
        yield from head("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes")
        yield f"node_memory_working_set_bytes {node['memory'].get('workingSetBytes', 0)}"
    pods: dict[str, list[Sample]] = {}
    for sample in samples:
        pods.setdefault(f'namespace="{sample.info.pod.namespace}",pod="{sample.info.pod.name}"', []).append(sample)
    yield from head("pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds")
    for labels, mine in pods.items():
        yield f"pod_cpu_usage_seconds_total{{{labels}}} {sum(s.stats.cpu_nanoseconds for s in mine) / 1e9:.9g}"
    yield from head("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes")
    for labels, mine in pods.items():
        yield f"pod_memory_working_set_bytes{{{labels}}} {sum(s.stats.memory_working_set for s in mine)}"
    yield from head("resource_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise")
    yield "resource_scrape_error 0"
