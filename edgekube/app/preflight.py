"""What this machine must have, looked at before anything is made. Each finding: what is wrong, how it shows, what to do.

`refusals` stop a server from starting (one line each); `edgekube check` shows all findings, and those of app/checks, which take longer.
"""

import os
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from edgekube.api.nodelabels import forbidden_to_nodes
from edgekube.app.checks.finding import Finding
from edgekube.app.paths import paths_of
from edgekube.config import Settings
from edgekube.lib.process import ProgramMissing, require
from edgekube.proxy import ipvslink as ipvs
from edgekube.store.protocol import StoreDamaged
from edgekube.store.recovery import refuse_foreign

PROGRAMS = (("podman", "podman"), ("conmon", "conmon"), ("nft", "nftables"))
RUNTIMES = ("crun", "runc")
_LEAST_FREE = 64 << 20


def examine(settings: Settings, *, agent: bool = False) -> list[Finding]:
    """All checks of a server or an agent, in order."""
    return [finding for check in (AGENT_CHECKS if agent else CHECKS) for finding in check(settings)]


def refusals(settings: Settings, *, agent: bool = False) -> list[str]:
    """One line for each reason not to start."""
    bad = [found for found in examine(settings, agent=agent) if found.fatal and not found.ok]
    return [f"{found.text}: {found.fix}" if found.fix else found.text for found in bad]


def _root(settings: Settings) -> Sequence[Finding]:
    if settings.disable_agent or os.geteuid() == 0:
        return (Finding("root", True, "running as root" if os.geteuid() == 0 else "no root needed without a node"),)
    return (Finding("root", False, "a node makes namespaces, links and rules, which needs root", "run it with sudo"),)


def _programs(settings: Settings) -> Sequence[Finding]:
    if settings.disable_agent:
        return ()
    found = []
    for program, package in PROGRAMS:
        try:
            found.append(Finding(program, True, require(program, package=package)))
        except ProgramMissing as error:
            found.append(Finding(program, False, str(error)))
    runtimes = [name for name in RUNTIMES if _where(name)]
    if runtimes:
        found.append(Finding("OCI runtime", True, ", ".join(runtimes)))
    else:
        found.append(Finding("OCI runtime", False, "neither crun nor runc was found", "install the package crun"))
    return found


def _where(program: str) -> str | None:
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")


def _kernel(settings: Settings) -> Sequence[Finding]:
    if settings.disable_agent:
        return ()
    missing = [name for name in ("net", "ipc", "uts", "pid", "mnt") if not Path(f"/proc/self/ns/{name}").exists()]
    return [Finding(f"{name} namespaces", False, f"the kernel has no {name} namespaces") for name in missing]


def _proxy(settings: Settings) -> Sequence[Finding]:
    """Only what was asked for by name and can be known before anything is made; by itself the proxy takes what works."""
    if settings.disable_agent or settings.proxy_mode not in ("iptables", "ipvs"):
        return ()
    if settings.proxy_mode == "iptables":
        try:
            return (Finding("proxy mode", True, require("iptables-restore", package="iptables")),)
        except ProgramMissing as error:
            return (Finding("proxy mode", False, f"--proxy-mode=iptables: {error}"),)
    if reason := ipvs.missing():
        return (Finding("proxy mode", False, f"--proxy-mode=ipvs: {reason}", "modprobe ip_vs, or use another mode"),)
    return (Finding("proxy mode", True, "the kernel has IPVS"),)


def _labels(settings: Settings) -> Sequence[Finding]:
    refused = forbidden_to_nodes(label.partition("=")[0] for label in settings.node_labels)
    if not refused:
        return ()
    why = f"--node-labels: a node may not give itself {', '.join(refused)}"
    return (Finding("node labels", False, why, f"set it once the node is there: edgekube kubectl label node NAME {refused[0]}=VALUE"),)


def _port(settings: Settings) -> Sequence[Finding]:
    wanted = [("the API", settings.bind_address, settings.https_port)]
    return _free(wanted) if settings.disable_agent else (*_free(wanted), *_kubelet_port(settings))


def _kubelet_port(settings: Settings) -> Sequence[Finding]:
    return _free([("the kubelet", settings.bind_address, settings.kubelet_port)])


def _free(wanted: Sequence[tuple[str, str, int]]) -> Sequence[Finding]:
    found = []
    for what, address, port in wanted:
        try:
            with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, port))
            found.append(Finding(f"port {port}", True, f"port {port} for {what} is free"))
        except OSError as error:
            why = f"port {port} for {what} can not be used: {(error.strerror or str(error)).lower()}"
            found.append(Finding(f"port {port}", False, why, f"see who has it with: ss -ltnp 'sport = :{port}'"))
    return found


def _space(settings: Settings) -> Sequence[Finding]:
    """A first start needs room. A node that boots with a full disk runs what it has, and whoever is to delete something needs the API."""
    folder, paths = settings.data_dir, paths_of(settings)
    while not os.path.exists(folder):  # unlike Path.exists it takes "not allowed to look" for a no
        folder = folder.parent
    state = os.statvfs(folder)
    free = state.f_bavail * state.f_frsize
    text = f"{free >> 20} MiB free for {settings.data_dir}"
    if os.path.exists(paths.database) or os.path.exists(paths.agent / "node.json"):
        fix = f"make room, at least {_LEAST_FREE >> 20} MiB: new pods and changes may fail"
        return (Finding("disk", free >= _LEAST_FREE, text, fix, fatal=False),)
    return (Finding("disk", free >= _LEAST_FREE, text, f"at least {_LEAST_FREE >> 20} MiB are needed to start"),)


def _ranges(settings: Settings) -> Sequence[Finding]:
    """A LAN or VPN that uses the cluster's ranges: a new cluster can have others, an old one is told what it can not reach."""
    if settings.disable_agent:
        return ()
    from edgekube.network.collisions import free_ranges, look

    found, used = look((*settings.cluster_cidrs, *settings.service_cidrs))
    if not found:
        return (Finding("ranges", True, f"{settings.cluster_cidr} and {settings.service_cidr} are free"),)
    worst = max(found, key=lambda each: each.inside)
    text = f"the cluster's range {worst.cidr} overlaps {worst.dst} on {worst.link or 'this host'}"
    free = free_ranges(used)
    fix = "choose others with --cluster-cidr, --service-cidr and --cluster-dns"
    if free is not None:
        dns = f"{free[1].removesuffix('.0.0/16')}.0.10"
        fix = f"choose others, such as --cluster-cidr={free[0]} --service-cidr={free[1]} --cluster-dns={dns}"
    new = not paths_of(settings).database.exists()
    return (Finding("ranges", False, text, fix, fatal=worst.inside and new),)


def _database(settings: Settings) -> Sequence[Finding]:
    path = paths_of(settings).database
    if not os.path.isfile(path):
        return (Finding("database", True, f"{path} will be made"),)
    try:
        refuse_foreign(path)
    except (StoreDamaged, OSError) as error:
        return (Finding("database", False, str(error)),)
    return (Finding("database", True, f"{path} is ours"),)


def _no_agent(settings: Settings) -> Sequence[Finding]:
    """One data directory is one of both: the identity of an agent and the state of a cluster do not mix."""
    if not os.path.isdir(paths_of(settings).agent):  # unlike Path.is_dir it takes "not allowed to look" for a no
        return ()
    text = f"{settings.data_dir} belongs to an agent"
    return (Finding("data directory", False, text, "start it with edgekube agent, use another --data-dir, or run edgekube uninstall"),)


def _no_server(settings: Settings) -> Sequence[Finding]:
    if not os.path.isdir(paths_of(settings).database.parent):
        return ()
    text = f"{settings.data_dir} belongs to a server"
    return (Finding("data directory", False, text, "start it with edgekube server, use another --data-dir, or run edgekube uninstall"),)


Check = Callable[[Settings], Sequence[Finding]]
CHECKS: tuple[Check, ...] = (_root, _programs, _kernel, _proxy, _labels, _no_agent, _port, _space, _ranges, _database)
AGENT_CHECKS: tuple[Check, ...] = (_root, _programs, _kernel, _proxy, _labels, _no_server, _kubelet_port, _space)
