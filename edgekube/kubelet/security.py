"""Pod and container security contexts merged into what the runtime gets, and the refusals that come from them. Pure.

The container's own setting wins over the pod's. `runAsNonRoot` is verified against the image's user once the image is known.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekube.api.types import Obj
from edgekube.kubelet.podspec import described
from edgekube.kubelet.runtime.protocol import ImageInfo, Security

SAFE_SYSCTLS = (
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
)


class ConfigRefused(Exception):
    """The container cannot be configured as its spec says: CreateContainerConfigError with this message."""


def merged(pod: Obj, container: Obj) -> dict[str, Any]:
    """The effective security context of a container; `capabilities`, `privileged` etc. exist on the container only."""
    ours: Mapping[str, Any] = pod["spec"].get("securityContext") or {}
    own: Mapping[str, Any] = container.get("securityContext") or {}
    shared = ("seLinuxOptions", "runAsUser", "runAsGroup", "runAsNonRoot", "seccompProfile", "appArmorProfile")
    return {name: ours[name] for name in shared if ours.get(name) is not None} | {k: v for k, v in own.items() if v is not None}


def image_user(user: str) -> tuple[int | None, str]:
    """`1000:1000` -> (1000, ""), `nobody` -> (None, "nobody"), "" -> (0, "")."""
    name = user.split(":", 1)[0]
    if not name:
        return 0, ""
    return (int(name), "") if name.isdigit() else (None, name)


def verify_non_root(pod: Obj, container: Obj, image: ImageInfo) -> None:
    """Raises ConfigRefused when runAsNonRoot is asked for and cannot be promised."""
    context = merged(pod, container)
    if not context.get("runAsNonRoot"):
        return
    where = f'(pod: "{described(pod)}", container: {container["name"]})'
    user = context.get("runAsUser")
    if user is not None:
        if user == 0:
            raise ConfigRefused(f"container's runAsUser breaks non-root policy {where}")
        return
    uid, name = image_user(image.user)
    if uid == 0:
        raise ConfigRefused(f"container has runAsNonRoot and image will run as root {where}")
    if uid is None:
        raise ConfigRefused(f"container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {where}")


def security(pod: Obj, container: Obj, *, seccomp_dir: Path) -> Security:
    """Everything for the runtime."""
    context = merged(pod, container)
    shared: Mapping[str, Any] = pod["spec"].get("securityContext") or {}
    capabilities = context.get("capabilities") or {}
    privileged = bool(context.get("privileged"))
    return Security(
        user=context.get("runAsUser"),
        group=context.get("runAsGroup"),
        groups=_groups(shared),
        privileged=privileged,
        read_only_root=bool(context.get("readOnlyRootFilesystem")),
        no_new_privileges=_no_new_privileges(context),
        capabilities_add=tuple(map(str.upper, capabilities.get("add") or ())),
        capabilities_drop=tuple(map(str.upper, capabilities.get("drop") or ())),
        seccomp="unconfined" if privileged else _seccomp(context, seccomp_dir),
        apparmor=_apparmor(context),
        selinux=dict(context.get("seLinuxOptions") or {}),
        masked_paths=context.get("procMount", "Default") != "Unmasked" and not privileged,
    )


def _groups(shared: Mapping[str, Any]) -> Sequence[int]:
    groups = list(shared.get("supplementalGroups") or ())
    if shared.get("fsGroup") is not None:
        groups.append(shared["fsGroup"])
    return tuple(dict.fromkeys(groups))


def _no_new_privileges(context: Mapping[str, Any]) -> bool:
    # Not allowed only when it says so: unset means allowed, and privileged implies it.
    return context.get("allowPrivilegeEscalation") is False and not context.get("privileged")


def _seccomp(context: Mapping[str, Any], folder: Path) -> str:
    profile = context.get("seccompProfile") or {}
    kind = profile.get("type") or "Unconfined"  # upstream's seccompDefault is off
    if kind == "RuntimeDefault":
        return ""
    if kind == "Localhost":
        name = profile.get("localhostProfile") or ""
        if not name or ".." in Path(name).parts or name.startswith("/"):
            raise ConfigRefused("localhostProfile must be set if seccompProfile type is Localhost.")
        return str(folder / name)
    return "unconfined"


def _apparmor(context: Mapping[str, Any]) -> str:
    profile = context.get("appArmorProfile") or {}
    kind = profile.get("type")
    if kind == "Unconfined":
        return "unconfined"
    return str(profile.get("localhostProfile") or "") if kind == "Localhost" else ""


def sysctls(pod: Obj) -> dict[str, str]:
    """As the pod asks for."""
    entries = (pod["spec"].get("securityContext") or {}).get("sysctls") or ()
    return {entry["name"].replace("/", "."): entry["value"] for entry in entries}


def forbidden_sysctl(pod: Obj) -> str:
    """Why the pod's sysctls are refused at admission (upstream's SysctlForbidden message), or ""."""
    for name in sysctls(pod):
        if name not in SAFE_SYSCTLS:
            return f'forbidden sysctl: "{name}" not allowlisted'
        if name.startswith("net.") and pod["spec"].get("hostNetwork"):
            return f'forbidden sysctl: "{name}" not allowed with host net enabled'
        if name.startswith("kernel.shm") and pod["spec"].get("hostIPC"):
            return f'forbidden sysctl: "{name}" not allowed with host ipc enabled'
    return ""
