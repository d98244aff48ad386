"""The kubelet's settings. edgekube.app builds it from `edgekube.config.Settings`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgekube.kubelet.imagegc import Thresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeletConfig:
    """Everything one node needs; paths are this node's own, so that several nodes can share a machine."""

    node_name: str
    data_dir: Path  # pods/<uid>/... lives here
    run_dir: Path
    pod_logs: Path = Path("/var/log/pods")
    container_logs: Path = Path("/var/log/containers")
    node_ip: str = ""  # "": of the default route, else any
    kubelet_port: int = 10250
    max_pods: int = 110
    cluster_dns: Sequence[str] = ("10.43.0.10",)
    cluster_domain: str = "cluster.local"
    resolv_conf: Path = Path("/etc/resolv.conf")
    node_labels: Sequence[str] = ()  # key=value
    node_taints: Sequence[str] = ()  # key=value:effect
    eviction_memory: int = 100 << 20  # bytes available below which pods are evicted
    eviction_disk_fraction: float = 0.10
    eviction_inodes_fraction: float = 0.05
    image_gc: Thresholds = field(default_factory=Thresholds)
    lease_seconds: int = 40
    lease_renew_seconds: float = 10.0
    node_status_seconds: float = 300.0
    fence_seconds: float = 0.0  # what the Node promises: see fence.py; 0: nothing

    static_pods: Path | None = None  # folder of static pods; None: <data_dir>/manifests/static

    @property
    def static_dir(self) -> Path:
        return self.static_pods or self.data_dir / "manifests" / "static"

    @property
    def pods_dir(self) -> Path:
        return self.data_dir / "pods"
