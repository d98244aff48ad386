"""Validation of volumes (pkg/apis/core/validation/validation.go). Sources of storage vendors that left the tree are only counted."""

from collections.abc import Callable, Mapping, Sequence

from edgekube.api import problems, quantity, validate
from edgekube.api.kinds import env_rules
from edgekube.api.kinds.path_rules import backsteps, local_descending_path, local_non_reserved_path
from edgekube.api.types import Obj
from edgekube.errors import Problem

_FIELDS = (
    "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid",
)  # fmt: skip
_HOST_PATHS = ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket")
_MODE_TEXT = "must be a number between 0 and 0777 (octal), both inclusive"
_SOURCES = (
    "emptyDir", "hostPath", "gitRepo", "gcePersistentDisk", "awsElasticBlockStore", "secret", "nfs", "iscsi", "glusterfs", "flocker",
    "persistentVolumeClaim", "rbd", "cinder", "cephfs", "quobyte", "downwardAPI", "fc", "flexVolume", "configMap", "azureFile",
    "vsphereVolume", "photonPersistentDisk", "portworxVolume", "azureDisk", "storageos", "projected", "scaleIO", "csi", "ephemeral",
    "image",
)  # fmt: skip
_ONE_SOURCE = frozenset(_SOURCES)


def volumes(found: list[Problem], at: str, listed: Sequence[Obj], pod: str) -> dict[str, Obj]:
    """Check all; returns the good ones by name. `pod` is the pod's name, empty in a template."""
    good: dict[str, Obj] = {}
    created = {f"{pod}-{volume.get('name', '')}" for volume in listed if volume.get("ephemeral") is not None} if pod else set()
    for index, volume in enumerate(listed):
        wrong: list[Problem] = []
        here = f"{at}[{index}]"
        _source(wrong, here, volume, pod)
        name = volume.get("name", "")
        if not name:
            wrong.append(problems.required(f"{here}.name"))
        elif messages := validate.label(name):
            wrong += validate.each(f"{here}.name", name, messages)
        if name in good:
            wrong.append(problems.duplicate(f"{here}.name", name))
        if wrong:
            found += wrong
        else:
            good[name] = volume
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim in created:
            why = "must not reference a PVC that gets created for an ephemeral volume"
            found.append(problems.invalid(f"{here}.persistentVolumeClaim.claimName", claim, why))
    return good


def _source(found: list[Problem], at: str, volume: Obj, pod: str) -> None:
    kinds = [kind for kind in volume if kind in _ONE_SOURCE and volume[kind] is not None]
    if len(kinds) > 1:
        kinds.sort(key=_SOURCES.index)
        found += [problems.forbidden(f"{at}.{kind}", "may not specify more than 1 volume type") for kind in kinds[1:]]
    elif not kinds:
        found.append(problems.required(at, "must specify a volume type"))
        return
    kind = kinds[0]
    check = _CHECKS.get(kind)
    if check is not None:
        check(found, f"{at}.{kind}", volume[kind])
    if kind == "ephemeral" and pod and volume.get("name"):
        claim = f"{pod}-{volume['name']}"
        found += [problems.invalid(f"{at}.name", volume["name"], f'PVC name "{claim}": {text}') for text in validate.subdomain(claim)]


def _empty_dir(found: list[Problem], at: str, source: Obj) -> None:
    if source.get("sizeLimit") is not None and quantity.parse(source["sizeLimit"]) < 0:
        found.append(problems.forbidden(f"{at}.sizeLimit", "SizeLimit field must be a valid resource quantity"))


def _host_path(found: list[Problem], at: str, source: Obj) -> None:
    if not source.get("path"):
        found.append(problems.required(f"{at}.path"))
        return
    backsteps(found, f"{at}.path", source["path"])
    kind = source.get("type")
    if kind is not None and kind not in _HOST_PATHS:
        found.append(problems.not_supported(f"{at}.type", kind, _HOST_PATHS))


def _mode(found: list[Problem], at: str, mode: int | None) -> None:
    if mode is not None and not 0 <= mode <= 0o777:
        found.append(problems.invalid(at, mode, _MODE_TEXT))


def _secret(found: list[Problem], at: str, source: Obj) -> None:
    _named_files(found, at, source, "secretName")


def _config_map(found: list[Problem], at: str, source: Obj) -> None:
    _named_files(found, at, source, "name")


def _named_files(found: list[Problem], at: str, source: Obj, field: str) -> None:
    if not source.get(field):
        found.append(problems.required(f"{at}.{field}"))
    _mode(found, f"{at}.defaultMode", source.get("defaultMode"))
    _items(found, f"{at}.items", source.get("items") or ())


def _items(found: list[Problem], at: str, items: Sequence[Obj]) -> None:
    for index, item in enumerate(items):
        if not item.get("key"):
            found.append(problems.required(f"{at}[{index}].key"))
        if not item.get("path"):
            found.append(problems.required(f"{at}[{index}].path"))
        else:
            local_non_reserved_path(found, f"{at}[{index}].path", item["path"])
        _mode(found, f"{at}[{index}].mode", item.get("mode"))


def _downward(found: list[Problem], at: str, source: Obj) -> None:
    _mode(found, f"{at}.defaultMode", source.get("defaultMode"))
    for file in source.get("items") or ():
        _downward_file(found, at, file)


def _downward_file(found: list[Problem], at: str, file: Obj) -> None:
    if not file.get("path"):
        found.append(problems.required(f"{at}.path"))
    else:
        local_non_reserved_path(found, f"{at}.path", file["path"])
    field, resource = file.get("fieldRef"), file.get("resourceFieldRef")
    if field is not None:
        env_rules.field_ref(found, f"{at}.fieldRef", field, _FIELDS)
        if resource is not None:
            found.append(problems.invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
    elif resource is not None:
        env_rules.resource_ref(found, f"{at}.resourceFieldRef", resource, in_volume=True)
    else:
        found.append(problems.required(at, "one of fieldRef and resourceFieldRef is required"))
    _mode(found, f"{at}.mode", file.get("mode"))


def _projected(found: list[Problem], at: str, source: Obj) -> None:
    _mode(found, f"{at}.defaultMode", source.get("defaultMode"))
    taken: set[str] = set()
    for index, part in enumerate(source.get("sources") or ()):
        here = f"{at}.sources[{index}]"
        kinds = [kind for kind in _PROJECTIONS if part.get(kind) is not None]
        for kind in kinds:
            _PROJECTIONS[kind](found, f"{here}.{kind}", part[kind])
            for path in _paths(kind, part[kind]):
                if path in taken:
                    shown = part[kind].get("name", "") if kind in ("secret", "configMap") else path
                    found.append(problems.invalid(at, shown, "conflicting duplicate paths"))
                taken.add(path)
        if len(kinds) > 1:
            found.append(problems.forbidden(here, "may not specify more than 1 volume type per source"))


def _paths(kind: str, part: Obj) -> list[str]:
    """The files whose names are known beforehand and compared; upstream lets a token's path be taken twice."""
    if kind == "serviceAccountToken":
        return []
    if kind == "clusterTrustBundle":
        return [part["path"]] if part.get("path") else []
    if kind == "podCertificate":
        return [part[name] for name in ("credentialBundlePath", "keyPath", "certificateChainPath") if part.get(name)]
    return [item["path"] for item in part.get("items") or () if item.get("path")]


def _projected_names(found: list[Problem], at: str, part: Obj) -> None:
    if not part.get("name"):
        found.append(problems.required(f"{at}.name"))
    _items(found, f"{at}.items", part.get("items") or ())


def _projected_downward(found: list[Problem], at: str, part: Obj) -> None:
    for file in part.get("items") or ():
        _downward_file(found, at, file)


def _projected_token(found: list[Problem], at: str, part: Obj) -> None:
    seconds = part.get("expirationSeconds", 0)
    if seconds < 600:
        found.append(problems.invalid(f"{at}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"))
    if seconds > 1 << 32:
        found.append(problems.invalid(f"{at}.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds"))
    path = at.partition(".sources[")[0] + ".path"  # upstream names the volume's path, not the source's
    if not part.get("path"):
        found.append(problems.required(path))
    else:
        local_non_reserved_path(found, path, part["path"])


def _projected_bundle(found: list[Problem], at: str, part: Obj) -> None:
    by_name, by_signer = part.get("name") is not None, part.get("signerName") is not None
    if by_name and by_signer:
        found.append(problems.invalid(at, part, "only one of name and signerName may be used"))
    elif not by_name and not by_signer:
        found.append(problems.required(at, "either name or signerName must be specified"))
    elif by_name and part.get("labelSelector") is not None:
        found.append(problems.invalid(f"{at}.labelSelector", part["labelSelector"], "labelSelector must be unset if name is specified"))
    if not part.get("path"):
        found.append(problems.required(f"{at}.path"))
    else:
        local_non_reserved_path(found, f"{at}.path", part["path"])


def _projected_certificate(found: list[Problem], at: str, part: Obj) -> None:
    found += [problems.required(f"{at}.{name}") for name in ("signerName", "keyType") if not part.get(name)]


def _claim(found: list[Problem], at: str, source: Obj) -> None:
    if not source.get("claimName"):
        found.append(problems.required(f"{at}.claimName"))


def _nfs(found: list[Problem], at: str, source: Obj) -> None:
    if not source.get("server"):
        found.append(problems.required(f"{at}.server"))
    if not source.get("path"):
        found.append(problems.required(f"{at}.path"))
    elif not source["path"].startswith("/"):
        found.append(problems.invalid(f"{at}.path", source["path"], "must be an absolute path"))


def _csi(found: list[Problem], at: str, source: Obj) -> None:
    driver = source.get("driver", "")
    if not driver:
        found.append(problems.required(f"{at}.driver"))
    else:
        if len(driver) > 63:
            found.append(problems.too_long(f"{at}.driver", 63))
        found += validate.each(f"{at}.driver", driver, validate.subdomain(driver.lower()))
    ref = source.get("nodePublishSecretRef")
    if ref is not None and not ref.get("name"):
        found.append(problems.required(f"{at}.nodePublishSecretRef.name"))


def _ephemeral(found: list[Problem], at: str, source: Obj) -> None:
    template = source.get("volumeClaimTemplate")
    if template is None:
        found.append(problems.required(f"{at}.volumeClaimTemplate"))
        return
    spec, here = template.get("spec") or {}, f"{at}.volumeClaimTemplate.spec"
    if not spec.get("accessModes"):
        found.append(problems.required(f"{here}.accessModes", "at least 1 access mode is required"))
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is None:
        found.append(problems.required(f"{here}.resources[storage]"))
    elif quantity.parse(storage) <= 0:
        found.append(problems.invalid(f"{here}.resources.requests[storage]", storage, "must be greater than zero"))


def _git(found: list[Problem], at: str, source: Obj) -> None:
    if not source.get("repository"):
        found.append(problems.required(f"{at}.repository"))
    local_descending_path(found, f"{at}.directory", source.get("directory", ""))


def _image(found: list[Problem], at: str, source: Obj) -> None:
    if not source.get("reference"):
        found.append(problems.required(f"{at}.reference"))
    policy = source.get("pullPolicy", "")
    if policy not in ("Always", "IfNotPresent", "Never"):
        allowed = ("Always", "IfNotPresent", "Never")
        found.append(problems.not_supported(f"{at}.pullPolicy", policy, allowed) if policy else problems.required(f"{at}.pullPolicy"))


_Check = Callable[[list[Problem], str, Obj], None]
_CHECKS: Mapping[str, _Check] = {
    "emptyDir": _empty_dir, "hostPath": _host_path, "secret": _secret, "configMap": _config_map, "downwardAPI": _downward,
    "projected": _projected, "persistentVolumeClaim": _claim, "nfs": _nfs, "csi": _csi, "ephemeral": _ephemeral, "gitRepo": _git,
    "image": _image,
}  # fmt: skip
_PROJECTIONS: Mapping[str, _Check] = {
    "secret": _projected_names, "configMap": _projected_names, "downwardAPI": _projected_downward,
    "serviceAccountToken": _projected_token, "clusterTrustBundle": _projected_bundle, "podCertificate": _projected_certificate,
}  # fmt: skip
