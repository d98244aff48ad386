"""All settings: one frozen dataclass per component, and `load`, which lays flags over environment over file over defaults.

A flag `--data-dir`, the key `data-dir` of the configuration file and `EDGEKUBE_DATA_DIR` are the same setting. Each field's
metadata carries its help text; lists are comma-separated in flags and environment. Everything that names something on the host
(paths, links, tables, cgroups) derives from data-dir and run-dir, so that several nodes run side by side on one machine.
"""

import hashlib
import ipaddress
import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from edgekube.lib.pki import LEAF_LIFE

NODE_NAME_FILE = "node-name"  # in the data directory of a restored server: the name that its node keeps, on whatever machine
_LAST_PORT = 65535
_ALL = 100
_LEAST_MTU, _MOST_MTU = 576, 65000


class ConfigError(Exception):
    """A setting is wrong; the message names it."""


def setting(default: Any, text: str, *, role: str = "", shared: bool = False) -> Any:
    """A field with its help text. `role` names the one kind of process that takes it as a flag: server or agent; otherwise both do.
    `shared`: the whole cluster has one value, the server's; agents are told of it (kube-system/edgekube-cluster)."""
    return field(default=default, metadata={"help": text, "role": role, "shared": shared})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a user can set for a server and for an agent. What agents must know of the cluster itself they learn when they join."""

    data_dir: Path = setting(Path("/var/lib/edgekube"), "where everything that must survive lives")
    run_dir: Path = setting(Path("/run/edgekube"), "sockets, pinned namespaces and the runtime's state; should be a tmpfs")
    write_kubeconfig: Path = setting(Path("/etc/edgekube/kubeconfig.yaml"), "where the admin kubeconfig goes, mode 0600", role="server")
    bind_address: str = setting("0.0.0.0", "address the API and the kubelet listen on")
    https_port: int = setting(6443, "port of the API", role="server")
    advertise_address: str = setting("", "address others reach this server at (default: the node's)", role="server")
    tls_san: tuple[str, ...] = setting((), "more names and addresses for the API's certificate", role="server")
    cluster_cidr: str = setting("10.42.0.0/16", "range of pod addresses", role="server", shared=True)
    service_cidr: str = setting("10.43.0.0/16", "range of Service addresses", role="server", shared=True)
    cluster_dns: str = setting("10.43.0.10", "address of the cluster's DNS", role="server", shared=True)
    cluster_domain: str = setting("cluster.local", "domain of the cluster's names", role="server", shared=True)
    network_backend: str = setting(
        "vxlan", "how pods reach other nodes: vxlan, or host-gw (plain routes within a LAN)", role="server", shared=True
    )
    vxlan_port: int = setting(
        8472, "UDP port of the overlay; the next one is used inside it, for its self-test", role="server", shared=True
    )
    network_mtu: int = setting(
        0, "MTU of pods (default: 1450, with host-gw 1500, less where the uplink has less)", role="server", shared=True
    )
    node_port_range: str = setting("30000-32767", "ports for Services of type NodePort", role="server", shared=True)
    server: tuple[str, ...] = setting((), "where an agent finds the server, https://HOST:6443; several may be named", role="agent")
    token: str = setting("", "what lets this agent join (edgekube token create); needed once", role="agent")
    token_file: str = setting("", "file to read the token from instead", role="agent")
    join_timeout: int = setting(300, "seconds an agent that has not joined yet looks for a server before it gives up", role="agent")
    node_name: str = setting("", "name of this node (default: the host name)")
    node_ip: str = setting("", "address of this node (default: of the default route, else any)")
    node_labels: tuple[str, ...] = setting((), "labels of this node, key=value")
    node_taints: tuple[str, ...] = setting((), "taints of this node at registration, key=value:effect")
    disable: tuple[str, ...] = setting(
        (), "parts not to run: servicelb (then something else gives LoadBalancers their addresses)", role="server"
    )
    disable_discovery: bool = setting(False, "do not look for servers, or answer agents that do, on the local network")
    disable_agent: bool = setting(False, "run only the control plane, no node", role="server")
    proxy_mode: str = setting(
        "",
        "how Services are translated: nftables, iptables, ipvs or userspace; agents take the server's unless theirs is set"
        " (default: the first of nftables, iptables, userspace that the kernel can do)",
        shared=True,
    )
    proxy_health_port: int = setting(10256, "port of the service proxy's /healthz; 0 for none")
    kubelet_port: int = setting(10250, "port of the kubelet's API")
    static_pod_path: str = setting("", "folder of static pods (default: manifests/static in the data directory)")
    max_pods: int = setting(110, "pods this node takes")
    eviction_hard_memory: str = setting("100Mi", "free memory below which pods are evicted")
    image_gc_high_threshold: int = setting(85, "percent of the disk used at which unused images are removed (100: never)")
    image_gc_low_threshold: int = setting(80, "percent of the disk used down to which they are removed")
    minimum_image_ttl_seconds: int = setting(120, "seconds that an image stays at least, used or not")
    container_log_max_size: str = setting("10Mi", "size at which a container's log is rotated")
    container_log_max_files: int = setting(5, "log files kept per container")
    lease_seconds: int = setting(40, "how long a node's Lease holds; it is renewed after a quarter of that")
    node_monitor_grace_seconds: int = setting(50, "seconds of silence after which a node counts as lost", role="server")
    node_loss_policy: str = setting("stay", "what pods of a lost node do that do not say it themselves: stay, fenced, evict", role="server")
    fence_after_seconds: int = setting(
        60, "seconds without contact after which a node has ended its fenced pods", role="server", shared=True
    )
    shutdown_grace_seconds: int = setting(20, "how long pods may take to end when the machine shuts down")
    shutdown_grace_critical_seconds: int = setting(5, "how much of that is kept for critical pods, which end last")
    container_runtime_socket: str = setting("", "socket of a podman service to use instead of our own")
    private_registry: Path = setting(Path("/etc/edgekube/registries.yaml"), "mirrors, credentials and TLS of registries; followed live")
    resolv_conf: Path = setting(Path("/etc/resolv.conf"), "where the upstream name servers are read from")
    write_linger_ms: int = setting(0, "wait this long to gather writes into one commit (slow SD cards: 5 to 20)", role="server")
    snapshot_interval_hours: int = setting(
        12, "hours after which a snapshot is made by itself, if anything has changed; 0 for never", role="server"
    )
    snapshot_keep: int = setting(5, "how many of the snapshots made by itself are kept", role="server")
    snapshot_passphrase_file: str = setting("", "file with the passphrase that those are encrypted with (default: none)", role="server")
    event_ttl_seconds: int = setting(3600, "how long Events are kept", role="server")
    certificate_life_seconds: int = setting(0, "life of certificates other than the authority's (0: a year), for tests", role="test")
    test_clock_offset_file: str = setting("", "a file with seconds by which the clock is shifted, for tests", role="test")
    log_level: str = setting("info", "debug, info, warning or error")

    node_named: bool = setting(False, "whether a person chose the node's name", role="derived")

    @property
    def instance(self) -> str:
        """A short stable id of this installation on this machine, for names that must not collide. A node may change its name."""
        return hashlib.sha256(f"{self.data_dir}|{self.run_dir}".encode()).hexdigest()[:8]

    @property
    def certificate_life(self) -> timedelta:
        return timedelta(seconds=self.certificate_life_seconds) if self.certificate_life_seconds else LEAF_LIFE

    @property
    def kubernetes_address(self) -> str:
        """ClusterIP of the `kubernetes` Service: the first of the range."""
        return str(ipaddress.ip_network(self.service_cidrs[0])[1])

    @property
    def cluster_cidrs(self) -> tuple[str, ...]:
        """Pod ranges, one for each family; the first is the primary one."""
        return tuple(self.cluster_cidr.split(","))

    @property
    def service_cidrs(self) -> tuple[str, ...]:
        """Service ranges, one for each family; the first is the primary one."""
        return tuple(self.service_cidr.split(","))

    @property
    def dns_addresses(self) -> tuple[str, ...]:
        """Addresses of the cluster's DNS, one for each family at most."""
        return tuple(self.cluster_dns.split(","))

    @property
    def node_ips(self) -> tuple[str, ...]:
        """What `--node-ip` says; empty: the host's addresses decide."""
        return tuple(filter(None, self.node_ip.split(",")))

    @property
    def node_ports(self) -> range:
        low, _, high = self.node_port_range.partition("-")
        return range(int(low), int(high) + 1)


def key_of(name: str) -> str:
    """`data_dir` -> `data-dir`: the name of a setting in flags and files."""
    return name.replace("_", "-")


def flags_of(settings: type[Settings]) -> Sequence[Field[Any]]:
    """What can be set: all fields but those that follow from others."""
    return [spec for spec in fields(settings) if spec.metadata["role"] != "derived"]


def load(flags: Mapping[str, Any], *, environ: Mapping[str, str], file: Mapping[str, Any]) -> Settings:
    """Lay the sources over each other. `flags` and `file` are keyed `data-dir`. Raises ConfigError naming the setting and its source."""
    known = {key_of(spec.name): spec for spec in flags_of(Settings)}
    for key in file:
        if key not in known:
            raise ConfigError(f"unknown setting {key!r} in the configuration file")
    values: dict[str, Any] = {}
    for key, spec in known.items():
        variable = f"EDGEKUBE_{spec.name.upper()}"
        for source, found in ((f"--{key}", flags.get(key)), (variable, environ.get(variable)), (f"{key} in the file", file.get(key))):
            if found is not None:
                values[spec.name] = _convert(found, spec.default, source)
                break
    values["node_named"] = bool(values.get("node_name"))
    values["node_name"] = (values.get("node_name") or socket.gethostname()).lower()
    settings = Settings(**values)
    _check(settings)
    return settings


def shared(settings: Settings) -> dict[str, str]:
    """What every node of the cluster must have alike, as text."""
    names = [spec.name for spec in fields(Settings) if spec.metadata["shared"]]
    return {key_of(name): _text(getattr(settings, name)) for name in names}


def with_shared(settings: Settings, values: Mapping[str, str]) -> Settings:
    """`settings` with the cluster's values laid over them. What this version does not know is left out, and so is what this machine may
    choose for itself (a shared setting of either role) and has. Raises ConfigError."""
    known = {key_of(spec.name): spec for spec in fields(Settings) if spec.metadata["shared"] and not _chosen_here(settings, spec)}
    found = {known[key].name: _convert(value, known[key].default, f"{key} of the cluster") for key, value in values.items() if key in known}
    merged = replace(settings, **found)
    _check(merged)
    return merged


def _chosen_here(settings: Settings, spec: Field[Any]) -> bool:
    return not spec.metadata["role"] and getattr(settings, spec.name) != spec.default


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _convert(value: Any, default: Any, source: str) -> Any:
    try:
        if isinstance(default, bool):
            return value if isinstance(value, bool) else {"true": True, "1": True, "false": False, "0": False, "": True}[str(value).lower()]
        if isinstance(default, int):
            return int(value)
        if isinstance(default, Path):
            return Path(os.path.abspath(str(value)))
        if isinstance(default, tuple):
            parts: Sequence[Any] = value.split(",") if isinstance(value, str) else value
            return tuple(str(part) for entry in parts for part in str(entry).split(",") if part)
        return str(value)
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{source}: {value!r} is not a valid {type(default).__name__}") from None


_NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_SIZE = r"\d+(\.\d+)?([kMGTPE]|[KMGTPE]i)?"
_FORMS = (
    ("server", r"https://([^/@:\[\]]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?/?", "no address such as https://HOST:6443"),
    ("node_name", _NAME, "no name for a node: lower case letters, digits, '-' and '.' only"),
    ("cluster_domain", _NAME, "no domain: lower case letters, digits, '-' and '.' only"),
    ("network_backend", "vxlan|host-gw", "neither vxlan nor host-gw"),
    ("proxy_mode", "|nftables|iptables|ipvs|userspace", "not one of nftables, iptables, ipvs, userspace"),
    ("node_port_range", r"\d+-\d+", "no range of ports such as 30000-32767"),
    ("disable", "servicelb", "no part that can be left out: only servicelb is"),
    ("node_labels", r"[^=]+=[^=]*", "no label such as key=value"),
    ("node_taints", r"[^=:]+(=[^=:]*)?:(NoSchedule|PreferNoSchedule|NoExecute)", "no taint such as key=value:NoSchedule"),
    ("eviction_hard_memory", _SIZE, "no size such as 100Mi"),
    ("container_log_max_size", _SIZE, "no size such as 10Mi"),
    ("node_loss_policy", "stay|fenced|evict", "not one of stay, fenced, evict"),
    ("log_level", "debug|info|warning|error", "not one of debug, info, warning, error"),
)


def _check(settings: Settings) -> None:
    for name, pattern, why in _FORMS:
        value = getattr(settings, name)
        for text in value if isinstance(value, tuple) else (value,):
            if not re.fullmatch(pattern, text):
                raise ConfigError(f"--{key_of(name)}: {text!r} is {why}")
    for spec in fields(Settings):
        value = getattr(settings, spec.name)
        if type(value) is int and not 0 <= value <= (_LAST_PORT if spec.name.endswith("_port") else sys.maxsize):
            raise ConfigError(f"--{key_of(spec.name)}: {value} is out of range")
    if not 0 < settings.node_ports.start < settings.node_ports.stop <= _LAST_PORT + 1:
        raise ConfigError(f"--node-port-range: {settings.node_port_range} is no range of ports such as 30000-32767")
    if not settings.image_gc_low_threshold < settings.image_gc_high_threshold <= _ALL:
        low, high = settings.image_gc_low_threshold, settings.image_gc_high_threshold
        raise ConfigError(f"--image-gc-high-threshold: {high} is not above --image-gc-low-threshold {low} and at most {_ALL}")
    if settings.snapshot_keep < 1:
        raise ConfigError("--snapshot-keep: at least one snapshot is kept (to make none: --snapshot-interval-hours=0)")
    _check_addresses(settings)


_LISTS = ("cluster_cidr", "service_cidr", "cluster_dns", "node_ip")  # one for each family, at most


def _check_addresses(settings: Settings) -> None:
    for name in (*_LISTS, "bind_address", "advertise_address"):
        value = getattr(settings, name)
        parts = value.split(",") if name in _LISTS else [value]
        try:
            if not value and name in ("advertise_address", "node_ip"):
                continue
            found = [ipaddress.ip_network(part) if name.endswith("_cidr") else ipaddress.ip_address(part) for part in parts]
        except ValueError as error:
            raise ConfigError(f"--{key_of(name)}: {error}") from None
        if len({each.version for each in found}) < len(found):
            raise ConfigError(f"--{key_of(name)}: {value} names more than one of the same family")
    _check_ranges(settings)


def _check_ranges(settings: Settings) -> None:
    pods = {network.version: network for network in map(ipaddress.ip_network, settings.cluster_cidrs)}
    services = {network.version: network for network in map(ipaddress.ip_network, settings.service_cidrs)}
    for version in pods.keys() & services.keys():
        if pods[version].overlaps(services[version]):
            raise ConfigError(f"--cluster-cidr {pods[version]} and --service-cidr {services[version]} overlap")
    if services.keys() - pods.keys():
        raise ConfigError(f"--service-cidr {settings.service_cidr} has a family that --cluster-cidr {settings.cluster_cidr} has not")
    for address in map(ipaddress.ip_address, settings.dns_addresses):
        if address.version not in services or address not in services[address.version]:
            raise ConfigError(f"--cluster-dns {address} is not in --service-cidr {settings.service_cidr}")
    if settings.network_mtu and not _LEAST_MTU <= settings.network_mtu <= _MOST_MTU:
        raise ConfigError(f"--network-mtu: {settings.network_mtu} is not between {_LEAST_MTU} and {_MOST_MTU}")
    if not 0 < settings.vxlan_port < _LAST_PORT:
        raise ConfigError(f"--vxlan-port: {settings.vxlan_port} is not between 1 and {_LAST_PORT - 1}")
