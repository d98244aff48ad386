"""Validation of security contexts of pods and containers (pkg/apis/core/validation/validation.go)."""

import re
from collections.abc import Sequence
from typing import Any

from edgekube.api import problems, validate
from edgekube.api.kinds.path_rules import local_descending_path
from edgekube.api.types import Obj
from edgekube.errors import Problem

_MAX_ID = 2**31 - 1
_SYSCTL_PATTERN = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
_SYSCTL = re.compile(_SYSCTL_PATTERN[1:-1]).fullmatch
_NET_SYSCTLS = ("net.",)
_IPC_SYSCTLS = ("kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.")
_GO_FIELDS = (
    "capabilities", "privileged", "seLinuxOptions", "windowsOptions", "runAsUser", "runAsGroup", "runAsNonRoot",
    "readOnlyRootFilesystem", "allowPrivilegeEscalation", "procMount", "seccompProfile", "appArmorProfile",
)  # fmt: skip
_WINDOWS_POD = ("appArmorProfile", "seLinuxOptions", "seccompProfile", "fsGroup", "fsGroupChangePolicy", "sysctls", "runAsUser",
                "runAsGroup", "supplementalGroups", "supplementalGroupsPolicy", "seLinuxChangePolicy")  # fmt: skip
_WINDOWS_SPEC = ("hostUsers", "hostPID", "hostIPC", "shareProcessNamespace")
_WINDOWS_CONTAINER = ("appArmorProfile", "seLinuxOptions", "seccompProfile", "capabilities", "readOnlyRootFilesystem", "privileged",
                      "allowPrivilegeEscalation", "procMount", "runAsUser", "runAsGroup")  # fmt: skip


def _ids(found: list[Problem], at: str, context: Obj, names: Sequence[str]) -> None:
    for name in names:
        number = context.get(name)
        if number is not None and not 0 <= number <= _MAX_ID:
            found.append(problems.invalid(f"{at}.{name}", number, validate.between(0, _MAX_ID)))


def container_context(found: list[Problem], at: str, context: Obj, *, host_users: bool) -> None:
    """ValidateSecurityContext."""
    _ids(found, at, context, ("runAsUser", "runAsGroup"))
    mount = context.get("procMount")
    if mount is not None:
        if mount not in ("Default", "Unmasked"):
            found.append(problems.not_supported(f"{at}.procMount", mount, ("Default", "Unmasked")))
        if host_users and mount == "Unmasked":
            found.append(problems.invalid(f"{at}.procMount", mount, "`hostUsers` must be false to use `Unmasked`"))
    if context.get("seccompProfile") is not None:
        seccomp(found, f"{at}.seccompProfile", context["seccompProfile"])
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            found.append(problems.invalid(at, _internal(context), why))
        if "CAP_SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
            why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            found.append(problems.invalid(at, _internal(context), why))
    if context.get("appArmorProfile") is not None:
        app_armor(found, f"{at}.appArmorProfile", context["appArmorProfile"])


def _internal(context: Obj) -> dict[str, Any]:
    """As Go writes its internal struct: every field, in upper case."""
    return {name[0].upper() + name[1:]: _upper(context.get(name)) for name in _GO_FIELDS}


def _upper(value: Any) -> Any:
    if isinstance(value, dict):
        return {name[0].upper() + name[1:]: _upper(inner) for name, inner in value.items()}
    return value


def seccomp(found: list[Problem], at: str, profile: Obj) -> None:
    """validateSeccompProfileField."""
    kind, local = profile.get("type", ""), profile.get("localhostProfile")
    if not kind:
        found.append(problems.required(f"{at}.type", "type is required when seccompProfile is set"))
    elif kind not in ("Localhost", "RuntimeDefault", "Unconfined"):
        found.append(problems.not_supported(f"{at}.type", kind, ("Localhost", "RuntimeDefault", "Unconfined")))
    if kind == "Localhost":
        if local is None:
            found.append(problems.required(f"{at}.localhostProfile", "must be set when seccomp type is Localhost"))
        else:
            local_descending_path(found, f"{at}.localhostProfile", local)
    elif local is not None:
        why = "can only be set when seccomp type is Localhost"
        found.append(problems.invalid(f"{at}.localhostProfile", {"Type": kind, "LocalhostProfile": local}, why))


def app_armor(found: list[Problem], at: str, profile: Obj) -> None:
    """ValidateAppArmorProfileField."""
    kind, local = profile.get("type", ""), profile.get("localhostProfile")
    there = f"{at}.localhostProfile"
    if kind == "Localhost":
        if local is None or not local.strip():
            found.append(problems.required(there, "must be set when AppArmor type is Localhost"))
        elif local.strip() != local:
            found.append(problems.invalid(there, local, "must not be padded with whitespace"))
        if local is not None and len(local) > 4095:
            found.append(problems.too_long(there, 4095))
    elif kind in ("RuntimeDefault", "Unconfined"):
        if local is not None:
            found.append(problems.invalid(there, local, "can only be set when AppArmor type is Localhost"))
    elif not kind:
        found.append(problems.required(f"{at}.type", "type is required when appArmorProfile is set"))
    else:
        found.append(problems.not_supported(f"{at}.type", kind, ("Localhost", "RuntimeDefault", "Unconfined")))


def pod_context(found: list[Problem], at: str, context: Obj, spec: Obj) -> None:
    """validatePodSpecSecurityContext."""
    _ids(found, at, context, ("fsGroup", "runAsUser", "runAsGroup"))
    for index, group in enumerate(context.get("supplementalGroups") or ()):
        if not 0 <= group <= _MAX_ID:
            found.append(problems.invalid(f"{at}.supplementalGroups[{index}]", group, validate.between(0, _MAX_ID)))
    if context.get("sysctls"):
        _sysctls(found, f"{at}.sysctls", context["sysctls"], spec)
    for name, allowed in (("fsGroupChangePolicy", ("Always", "OnRootMismatch")),
                          ("supplementalGroupsPolicy", ("Merge", "Strict")),
                          ("seLinuxChangePolicy", ("MountOption", "Recursive"))):  # fmt: skip
        if context.get(name) is not None and context[name] not in allowed:
            found.append(problems.not_supported(f"{at}.{name}", context[name], allowed))
    if context.get("seccompProfile") is not None:
        seccomp(found, f"{at}.seccompProfile", context["seccompProfile"])
    if context.get("appArmorProfile") is not None:
        app_armor(found, f"{at}.appArmorProfile", context["appArmorProfile"])


def _sysctls(found: list[Problem], at: str, listed: Sequence[Obj], spec: Obj) -> None:
    names: set[str] = set()
    for index, sysctl in enumerate(listed):
        name, here = sysctl.get("name", ""), f"{at}[{index}].name"
        if not name:
            found.append(problems.required(here))
        elif len(name) > 253 or not _SYSCTL(name):
            why = f"must have at most 253 characters and match regex {_SYSCTL_PATTERN}"
            found.append(problems.invalid(here, name, why))
        elif name in names:
            found.append(problems.duplicate(here, name))
        names.add(name)
        dotted = name.replace("/", ".")
        if spec.get("hostNetwork") and dotted.startswith(_NET_SYSCTLS):
            found.append(problems.invalid(here, name, "may not be specified when 'hostNetwork' is true"))
        elif spec.get("hostIPC") and dotted.startswith(_IPC_SYSCTLS):
            found.append(problems.invalid(here, name, "may not be specified when 'hostIPC' is true"))


def host_users(found: list[Problem], at: str, spec: Obj) -> None:
    """A pod with users of its own shares nothing else with the node."""
    if spec.get("hostUsers") is not False:
        return
    for name, shown in (("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")):
        if spec.get(name):
            found.append(problems.forbidden(f"{at}.{shown}", "when `pod.Spec.HostUsers` is false"))


def operating_system(found: list[Problem], at: str, spec: Obj) -> None:
    """spec.os, and what may not be said for it."""
    name = spec["os"].get("name", "")
    containers = [
        (f"{at}.{group}[{index}].securityContext", container.get("securityContext") or {})
        for group in ("initContainers", "containers", "ephemeralContainers")
        for index, container in enumerate(spec.get(group) or ())
    ]
    context = spec.get("securityContext") or {}
    if not name:
        found.append(problems.required(f"{at}.os.name", "cannot be empty"))
    elif name not in ("linux", "windows"):
        found.append(problems.not_supported(f"{at}.os.name", name, ("linux", "windows")))
    elif name == "linux":
        for path, inner in ((f"{at}.securityContext", context), *containers):
            if inner.get("windowsOptions") is not None:
                found.append(problems.forbidden(f"{path}.windowsOptions", "windows options cannot be set for a linux pod"))
    else:
        forbidden = [f"{at}.securityContext.{field}" for field in _WINDOWS_POD if context.get(field) is not None]
        forbidden += [f"{at}.{field}" for field in _WINDOWS_SPEC if spec.get(field) is not None]
        forbidden += [f"{path}.{field}" for path, inner in containers for field in _WINDOWS_CONTAINER if inner.get(field) is not None]
        found += [problems.forbidden(path, "cannot be set for a windows pod") for path in forbidden]
