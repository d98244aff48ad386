"""Validation of a container's volume mounts and block devices (pkg/apis/core/validation/validation.go)."""

from collections.abc import Mapping

from edgekube.api import problems
from edgekube.api.kinds.path_rules import local_descending_path, no_backsteps
from edgekube.api.types import Obj
from edgekube.errors import Problem


def mounts(found: list[Problem], at: str, container: Obj, volumes: Mapping[str, Obj]) -> None:
    """Volume mounts of one container."""
    devices = {device.get("name", ""): device.get("devicePath", "") for device in container.get("volumeDevices") or ()}
    paths: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        name, path = mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            found.append(problems.required(f"{at}[{index}].name"))
        if name not in volumes:
            found.append(problems.not_found(f"{at}[{index}].name", name))
        if not path:
            found.append(problems.required(f"{at}[{index}].mountPath"))
        if path in paths:
            found.append(problems.invalid(f"{at}[{index}].mountPath", path, "must be unique"))
        paths.add(path)
        if devices:
            if name in devices:
                found.append(problems.invalid(f"{at}[{index}].name", name, "must not already exist in volumeDevices"))
            if path in devices.values():
                why = "must not already exist as a path in volumeDevices"
                found.append(problems.invalid(f"{at}[{index}].mountPath", path, why))
        if len(mount) > 2:
            _mount_options(found, at, index, mount, container, volumes.get(name))


def _mount_options(found: list[Problem], at: str, index: int, mount: Obj, container: Obj, volume: Obj | None) -> None:
    sub, expression = mount.get("subPath", ""), mount.get("subPathExpr", "")
    if volume is not None and volume.get("image") is not None:
        for name, value in (("subPath", sub), ("subPathExpr", expression)):
            if value:
                found.append(problems.invalid(f"{at}[{index}].{name}", value, "not allowed in image volume sources"))
    if sub:
        local_descending_path(found, f"{at}.subPath", sub)
    if expression:
        if sub:
            found.append(problems.invalid(f"{at}[{index}].subPathExpr", expression, "subPathExpr and subPath are mutually exclusive"))
        local_descending_path(found, f"{at}.subPathExpr", expression)
    propagation = mount.get("mountPropagation")
    if propagation is not None:
        _propagation(found, f"{at}.mountPropagation", propagation, container)
    recursive = mount.get("recursiveReadOnly")
    if recursive is not None:
        _recursive(found, f"{at}.recursiveReadOnly", recursive, mount)


def _propagation(found: list[Problem], at: str, mode: str, container: Obj) -> None:
    modes = ("Bidirectional", "HostToContainer", "None")
    if mode not in modes:
        found.append(problems.not_supported(at, mode, modes))
    if mode == "Bidirectional" and not (container.get("securityContext") or {}).get("privileged"):
        found.append(problems.forbidden(at, "Bidirectional mount propagation is available only to privileged containers"))


def _recursive(found: list[Problem], at: str, mode: str, mount: Obj) -> None:
    if mode not in ("Disabled", "IfPossible", "Enabled"):
        found.append(problems.not_supported(at, mode, ("Disabled", "Enabled", "IfPossible")))
    elif mode != "Disabled":
        if not mount.get("readOnly"):
            found.append(problems.forbidden(at, "may only be specified when readOnly is true"))
        if mount.get("mountPropagation") not in (None, "None"):
            found.append(problems.forbidden(at, "may only be specified when mountPropagation is None or not specified"))


def devices(found: list[Problem], at: str, container: Obj, volumes: Mapping[str, Obj]) -> None:
    """Block devices of one container."""
    mounted = {mount.get("name", ""): mount.get("mountPath", "") for mount in container.get("volumeMounts") or ()}
    names: set[str] = set()
    paths: set[str] = set()
    for index, device in enumerate(container.get("volumeDevices") or ()):
        name, path = device.get("name", ""), device.get("devicePath", "")
        here, there = f"{at}[{index}].name", f"{at}[{index}].devicePath"
        volume = volumes.get(name)
        if not name:
            found.append(problems.required(here))
        if name in names:
            found.append(problems.invalid(here, name, "must be unique"))
        if volume is None:
            found.append(problems.not_found(here, name))
        elif volume.get("persistentVolumeClaim") is None and volume.get("ephemeral") is None:
            why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            found.append(problems.invalid(here, name, why))
        if not path:
            found.append(problems.required(there))
        if path in paths:
            found.append(problems.invalid(there, path, "must be unique"))
        if path and not no_backsteps(path):
            found.append(problems.invalid(there, path, "can not contain backsteps ('..')"))
        else:
            paths.add(path)
        if name in mounted:
            found.append(problems.invalid(here, name, "must not already exist in volumeMounts"))
        if path in mounted.values():
            found.append(problems.invalid(there, path, "must not already exist as a path in volumeMounts"))
        names.add(name)
