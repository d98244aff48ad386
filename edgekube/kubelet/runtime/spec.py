"""A ContainerSpec as podman's SpecGenerator wants it (pure). What podman can do but Kubernetes does not is switched off here by name."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekube.kubelet.runtime.protocol import ContainerSpec, Mount, Resources, Sandbox, Security

UID, NAMESPACE, POD, NAME = (
    "io.kubernetes.pod.uid",
    "io.kubernetes.pod.namespace",
    "io.kubernetes.pod.name",
    "io.kubernetes.container.name",
)
ATTEMPT, HASH, LOG_PATH = "io.kubernetes.container.restartCount", "io.kubernetes.container.hash", "io.kubernetes.container.logPath"
IMAGE, TTY, INSTANCE, STOP_SIGNAL = "io.edgekube.image", "io.edgekube.tty", "io.edgekube.instance", "io.edgekube.stop-signal"
SHARED_PID, CGROUP = "io.edgekube.shared-pid", "io.edgekube.cgroup"
_SHM = os.path.join("/dev", "shm")
OWN_LABELS = frozenset({UID, NAMESPACE, POD, NAME, ATTEMPT, HASH, LOG_PATH, IMAGE, TTY, INSTANCE, STOP_SIGNAL, SHARED_PID, CGROUP})


@dataclass(frozen=True, slots=True)
class Host:
    """What this machine allows."""

    instance: str
    memory: bool  # the memory controller is there
    swap: bool  # and can limit swap
    cpu: bool
    pids: bool
    cgroup_namespaces: bool  # v2
    lowest_oom_score: int  # what an unprivileged edgekube must stay above


def container_name(spec: ContainerSpec) -> str:
    """As the docker shim named them: people grep for it."""
    pod = spec.pod
    return f"k8s_{spec.name}_{pod.name}_{pod.namespace}_{pod.uid}_{spec.attempt}"


def plan_create(spec: ContainerSpec, sandbox: Sandbox, host: Host, *, hostname: str, hostname_file: Path | None) -> dict[str, Any]:
    """The body of POST /containers/create."""
    env = dict(spec.env)
    if hostname:
        env.setdefault("HOSTNAME", hostname)
    if spec.tty:
        env.setdefault("TERM", "xterm")
    body: dict[str, Any] = {
        "name": container_name(spec),
        "image": spec.image.removeprefix("sha256:"),
        "env": env,
        "unsetenv": [name for name in ("container", "TERM") if name not in env],
        "env_host": False,
        "httpproxy": False,
        "terminal": spec.tty,
        "stdin": spec.stdin,
        "labels": _labels(spec, sandbox, host),
        "log_configuration": {"driver": "k8s-file", "path": str(spec.log_path)},
        "mounts": _mounts(spec, sandbox, hostname_file),
        "use_image_hosts": True,
        "use_image_resolve_conf": True,
        "restart_policy": "no",
        "systemd": "false",
        "init": False,
        "healthconfig": {"Test": ["NONE"]},
        "sdnotifyMode": "ignore",
        "cgroup_parent": spec.cgroup_parent,
        "resource_limits": plan_resources(spec.resources, host),
        "oom_score_adj": max(spec.resources.oom_score_adj, host.lowest_oom_score),
        **_namespaces(spec, sandbox, host),
        **_security(spec.security),
    }
    if spec.command:
        body["entrypoint"] = list(spec.command)
    if spec.args:
        body["command"] = list(spec.args)
    if spec.working_dir:
        body["work_dir"] = spec.working_dir
        body["create_working_dir"] = True
    if spec.devices:
        body["devices"] = [{"path": device} for device in spec.devices]
    return body


def plan_resources(resources: Resources, host: Host) -> dict[str, Any]:
    """Only what is set and what this host can do."""
    limits: dict[str, Any] = {}
    if host.cpu:
        values = {"shares": resources.cpu_shares, "quota": resources.cpu_quota, "period": resources.cpu_period}
        limits["cpu"] = {name: value for name, value in values.items() if value}
    if resources.memory_limit and host.memory:
        limits["memory"] = {"limit": resources.memory_limit}
        if host.swap:
            limits["memory"]["swap"] = resources.memory_limit
    if resources.pids_limit and host.pids:
        limits["pids"] = {"limit": resources.pids_limit}
    return limits


def _labels(spec: ContainerSpec, sandbox: Sandbox, host: Host) -> dict[str, str]:
    labels = {
        **spec.labels,
        UID: spec.pod.uid,
        NAMESPACE: spec.pod.namespace,
        POD: spec.pod.name,
        NAME: spec.name,
        ATTEMPT: str(spec.attempt),
        HASH: spec.hash,
        LOG_PATH: str(spec.log_path),
        IMAGE: spec.image_ref,
        INSTANCE: host.instance,
        STOP_SIGNAL: spec.stop_signal,
        CGROUP: spec.cgroup_parent,
    }
    if spec.tty:
        labels[TTY] = "true"
    if sandbox.pid or sandbox.host_pid or spec.pid_of:
        labels[SHARED_PID] = "true"
    return labels


def _namespaces(spec: ContainerSpec, sandbox: Sandbox, host: Host) -> dict[str, Any]:
    def at(path: str) -> dict[str, str]:
        return {"nsmode": "path", "value": path} if path else {"nsmode": "host"}

    private = {"nsmode": "private"}
    return {
        "netns": at(sandbox.net),
        "ipcns": at(sandbox.ipc),
        "utsns": at(sandbox.uts),
        "pidns": at(_pid_path(spec, sandbox)) if sandbox.host_pid or _pid_path(spec, sandbox) else private,
        "cgroupns": private if host.cgroup_namespaces and not spec.security.privileged else {"nsmode": "host"},
    }


def _pid_path(spec: ContainerSpec, sandbox: Sandbox) -> str:
    return f"/proc/{spec.pid_of}/ns/pid" if spec.pid_of else sandbox.pid


def _mounts(spec: ContainerSpec, sandbox: Sandbox, hostname_file: Path | None) -> list[dict[str, Any]]:
    taken = {os.path.normpath(mount.target) for mount in spec.mounts}
    found = [_mount(mount) for mount in spec.mounts]
    if sandbox.shm is not None and _SHM not in taken:
        found.append(_bind(str(sandbox.shm), _SHM, ["rbind", "rw"]))
    if hostname_file is not None and "/etc/hostname" not in taken:
        access = "ro" if spec.security.read_only_root else "rw"
        found.append(_bind(str(hostname_file), "/etc/hostname", ["bind", access]))
    return found


def _bind(source: str, target: str, options: list[str]) -> dict[str, Any]:
    return {"type": "bind", "source": source, "destination": target, "options": options}


def _mount(mount: Mount) -> dict[str, Any]:
    if mount.source == "tmpfs":
        options = [*mount.options, "ro"] if mount.read_only else list(mount.options)
        return {"type": "tmpfs", "source": "tmpfs", "destination": mount.target, "options": options or ["rw"]}
    access = "ro" if mount.read_only else "rw"
    return _bind(mount.source, mount.target, ["rbind", access, mount.propagation, *mount.options])


def _security(security: Security) -> dict[str, Any]:
    body: dict[str, Any] = {
        "privileged": security.privileged,
        "read_only_filesystem": security.read_only_root,
        "read_write_tmpfs": False,
        "no_new_privileges": security.no_new_privileges,
        "cap_add": [_capability(name) for name in security.capabilities_add],
        "cap_drop": [_capability(name) for name in security.capabilities_drop],
        "groups": [str(group) for group in security.groups],
    }
    user = security.user_name if security.user is None else str(security.user)
    if user or security.group is not None:
        body["user"] = (user or "0") + ("" if security.group is None else f":{security.group}")
    if security.seccomp:
        body["seccomp_profile_path"] = security.seccomp
    if security.apparmor:
        body["apparmor_profile"] = security.apparmor
    if security.selinux:
        body["selinux_opts"] = [f"{name}:{value}" for name, value in security.selinux.items()]
    if not security.masked_paths:
        body["unmask"] = ["ALL"]
    return body


def _capability(name: str) -> str:
    upper = name.upper()
    return upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"


def strip_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The caller's own labels, without ours."""
    return {name: value for name, value in labels.items() if name not in OWN_LABELS}
