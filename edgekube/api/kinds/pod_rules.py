"""Validation of pods and pod templates: create, and what an update of spec or status may change (pkg/apis/core/validation)."""

from collections.abc import Iterable, Mapping, Sequence

from edgekube.api import ipaddresses, problems, validate
from edgekube.api.kinds import diffs
from edgekube.api.kinds.podspec_rules import pod_spec
from edgekube.api.kinds.semantics import settled
from edgekube.api.types import Obj
from edgekube.errors import Problem

_MIRROR = "kubernetes.io/config.mirror"
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"
_UPDATABLE = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_MAX_INT32 = 2**31 - 1


def validate_pod(pod: Obj, old: Obj | None) -> Iterable[Problem]:
    """A new pod, or an update of its metadata and spec."""
    found: list[Problem] = []
    _metadata_and_spec(found, pod)
    spec = pod["spec"]
    if old is not None:
        _annotation_updates(found, pod["metadata"].get("annotations") or {}, old["metadata"].get("annotations") or {})
        _update(found, spec, old["spec"])
        return found
    if spec.get("ephemeralContainers"):
        found.append(problems.forbidden("spec.ephemeralContainers", "cannot be set on create"))
    if spec.get("nodeName") and spec.get("schedulingGates"):
        found.append(problems.forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared"))
    return found


def validate_template(found: list[Problem], at: str, template: Obj) -> None:
    """ValidatePodTemplateSpec."""
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    found += validate.labels(f"{at}.labels", metadata.get("labels"))
    annotations = metadata.get("annotations")
    if annotations:
        found += validate.annotations(f"{at}.annotations", annotations)
        _annotations(found, f"{at}.annotations", annotations, spec)
    pod_spec(found, f"{at}.spec", spec, pod="", in_pod=False)
    if spec.get("ephemeralContainers"):
        found.append(problems.forbidden(f"{at}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template"))


def _metadata_and_spec(found: list[Problem], pod: Obj) -> None:
    metadata, spec = pod["metadata"], pod["spec"]
    if metadata.get("annotations"):
        _annotations(found, "metadata.annotations", metadata["annotations"], spec)
    pod_spec(found, "spec", spec, pod=metadata.get("name", ""), in_pod=True)
    if not spec.get("serviceAccountName"):
        for index, volume in enumerate(spec.get("volumes") or ()):
            for number, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
                if source.get("serviceAccountToken") is not None:
                    there = f"spec.volumes[{index}].projected.sources[{number}].serviceAccountToken"
                    found.append(problems.forbidden(there, "must not be specified when serviceAccountName is not set"))


def _annotations(found: list[Problem], at: str, annotations: Mapping[str, str], spec: Obj) -> None:
    """ValidatePodSpecificAnnotations."""
    if _MIRROR in annotations and not spec.get("nodeName"):
        why = "must set spec.nodeName if mirror pod annotation is set"
        found.append(problems.invalid(f"{at}[{_MIRROR}]", annotations[_MIRROR], why))
    cost = annotations.get(_DELETION_COST)
    if cost is not None and not _is_int32(cost):
        found.append(problems.invalid(f"{at}[{_DELETION_COST}]", cost, "must be a 32bit integer"))
    for key, profile in annotations.items():
        if key.startswith(_APP_ARMOR):
            name = key.removeprefix(_APP_ARMOR)
            groups = ("initContainers", "containers", "ephemeralContainers")
            if not any(c.get("name") == name for group in groups for c in spec.get(group) or ()):
                found.append(problems.invalid(f"{at}[{key}]", name, "container not found"))
            if profile not in ("", "runtime/default", "unconfined") and not profile.startswith("localhost/"):
                found.append(problems.invalid(f"{at}[{key}]", profile, f'invalid AppArmor profile name: "{profile}"'))


def _is_int32(text: str) -> bool:
    digits = text[1:] if text[:1] in "-+" else text
    if not (digits.isascii() and digits.isdigit()) or text.startswith("+") or (text.startswith("0") and text != "0"):
        return False
    return -(2**31) <= int(text) <= _MAX_INT32


def _annotation_updates(found: list[Problem], new: Mapping[str, str], old: Mapping[str, str]) -> None:
    for key, value in old.items():
        if new.get(key) != value:
            if key.startswith(_APP_ARMOR):
                found.append(problems.forbidden(f"metadata.annotations[{key}]", "may not remove or update AppArmor annotations"))
            if key == _MIRROR:
                found.append(problems.forbidden(f"metadata.annotations[{key}]", "may not remove or update mirror pod annotation"))
    for key in new:
        if key not in old:
            if key.startswith(_APP_ARMOR):
                found.append(problems.forbidden(f"metadata.annotations[{key}]", "may not add AppArmor annotations"))
            if key == _MIRROR:
                found.append(problems.forbidden(f"metadata.annotations[{key}]", "may not add mirror pod annotation"))


def _update(found: list[Problem], spec: Obj, old: Obj) -> None:
    """ValidatePodUpdate, of the spec."""
    for group in ("containers", "initContainers"):
        if len(spec.get(group) or ()) != len(old.get(group) or ()):
            found.append(problems.forbidden(f"spec.{group}", "pod updates may not add or remove containers"))
            return
    new_deadline, old_deadline = spec.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds")
    if new_deadline is not None:
        if not 0 <= new_deadline <= _MAX_INT32:
            found.append(problems.invalid("spec.activeDeadlineSeconds", new_deadline, validate.between(0, _MAX_INT32)))
            return
        if old_deadline is not None and old_deadline < new_deadline:
            why = "must be less than or equal to previous value"
            found.append(problems.invalid("spec.activeDeadlineSeconds", new_deadline, why))
            return
    elif old_deadline is not None:
        why = "must not update from a positive integer to nil value"
        found.append(problems.invalid("spec.activeDeadlineSeconds", None, why))
    _only_added_tolerations(found, spec.get("tolerations") or (), old.get("tolerations") or ())
    known = {gate["name"] for gate in old.get("schedulingGates") or ()}
    for index, gate in enumerate(spec.get("schedulingGates") or ()):
        if gate.get("name") not in known:
            why = f"only deletion is allowed, but found new scheduling gate '{gate.get('name', '')}'"
            found.append(problems.forbidden(f"spec.schedulingGates[{index}].name", why))
    if spec != old:
        _immutable(found, spec, old)


def _only_added_tolerations(found: list[Problem], new: Sequence[Obj], old: Sequence[Obj]) -> None:
    def bare(toleration: Obj) -> Obj:
        return {name: value for name, value in toleration.items() if name != "tolerationSeconds"}

    there = [bare(toleration) for toleration in new]
    if any(bare(toleration) not in there for toleration in old):
        found.append(problems.forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds"))


def _immutable(found: list[Problem], spec: Obj, old: Obj) -> None:
    munged = dict(spec)
    for group in ("containers", "initContainers"):
        if spec.get(group):
            munged[group] = [{**now, "image": was.get("image")} for now, was in zip(spec[group], old[group], strict=True)]
    for name in ("activeDeadlineSeconds", "schedulingGates", "tolerations"):
        _take(munged, old, name)
    grace = "terminationGracePeriodSeconds"
    if (old.get(grace) or 0) < 0 and munged.get(grace) == 1:
        munged[grace] = old[grace]
    if old.get("schedulingGates"):
        _gated(found, munged, old)
    before, after = settled(old), settled(munged)
    if before != after:
        why = f"pod updates may not change fields other than {_UPDATABLE}\n{diffs.pod_spec(before, after)}"
        found.append(problems.forbidden("spec", why))


def _take(munged: Obj, old: Obj, name: str) -> None:
    if name in old:
        munged[name] = old[name]
    else:
        munged.pop(name, None)


def _gated(found: list[Problem], munged: Obj, old: Obj) -> None:
    """A pod that may not be scheduled yet can still be narrowed down."""
    selector, before = munged.get("nodeSelector") or {}, old.get("nodeSelector") or {}
    if any(selector.get(key) != value for key, value in before.items()):
        found.append(problems.invalid("spec.nodeSelector", selector, "only additions are allowed (no mutations or deletions)"))
    _take(munged, old, "nodeSelector")
    affinity, was = munged.get("affinity") or {}, old.get("affinity") or {}
    if affinity.get("nodeAffinity") != was.get("nodeAffinity"):
        _affinity_mutation(found, affinity.get("nodeAffinity"), was.get("nodeAffinity"))
        rest = {name: value for name, value in affinity.items() if name != "nodeAffinity"}
        if was.get("nodeAffinity") is not None:
            rest["nodeAffinity"] = was["nodeAffinity"]
        if rest or "affinity" in old:
            munged["affinity"] = rest
        else:
            munged.pop("affinity", None)


def _affinity_mutation(found: list[Problem], new: Obj | None, old: Obj | None) -> None:
    """validateNodeAffinityMutation: terms may only get more expressions."""
    at, field = "spec.affinity.nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"
    before = ((old or {}).get(field) or {}).get("nodeSelectorTerms") or ()
    after = ((new or {}).get(field) or {}).get("nodeSelectorTerms") or ()
    if not before:
        return
    there = f"{at}.{field}.nodeSelectorTerms"
    if len(before) != len(after):
        found.append(problems.invalid(there, list(after), "no additions/deletions to non-empty NodeSelectorTerms list are allowed"))
        return
    for index, (was, now) in enumerate(zip(before, after, strict=True)):
        if not was.get("matchExpressions") and not was.get("matchFields"):
            if was != now:
                found.append(problems.invalid(f"{there}[{index}]", now, "updates to empty terms are not allowed"))
            continue
        for name in ("matchExpressions", "matchFields"):
            kept = was.get(name) or []
            if (now.get(name) or [])[: len(kept)] != kept:
                why = "only additions are allowed (no mutations or deletions)"
                found.append(problems.invalid(f"{there}[{index}]", now, why))


def validate_status(pod: Obj, old: Obj | None) -> Iterable[Problem]:
    """ValidatePodStatusUpdate."""
    if old is None:
        return ()
    found: list[Problem] = []
    status, before = pod.get("status") or {}, old.get("status") or {}
    _annotation_updates(found, pod["metadata"].get("annotations") or {}, old["metadata"].get("annotations") or {})
    for index, condition in enumerate(status.get("conditions") or ()):
        kind = condition.get("type", "")
        if kind not in ("PodScheduled", "Ready", "Initialized") and (wrong := validate.qualified(kind)):
            found += validate.each(f"metadata.conditions[{index}].Type", kind, wrong)
    nominated = status.get("nominatedNodeName", "")
    if nominated and nominated != before.get("nominatedNodeName"):
        found += validate.each("status.nominatedNodeName", nominated, validate.subdomain(nominated))
    found += validate.immutable("status.qosClass", status.get("qosClass", ""), before.get("qosClass", ""))
    spec = old["spec"]
    policy = spec.get("restartPolicy", "")
    if policy != "Always" and not _restarts_all(spec):
        _transitions(found, "containerStatuses", status, before, policy, spec.get("containers") or ())
        _transitions(found, "initContainerStatuses", status, before, policy, spec.get("initContainers") or ())
    _transitions(found, "ephemeralContainerStatuses", status, before, "Never", ())
    for field, single in (("podIPs", ""), ("hostIPs", "hostIP")):
        _addresses(found, field, status.get(field) or (), status.get(single) if single else None)
    return found


def _restarts_all(spec: Obj) -> bool:
    """Some container's end may start every other one again."""
    containers = (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    return any(rule.get("action") == "RestartAllContainers" for c in containers for rule in c.get("restartPolicyRules") or ())


def _transitions(found: list[Problem], field: str, status: Obj, before: Obj, policy: str, containers: Sequence[Obj]) -> None:
    """What has ended for good does not run again."""
    now = {entry.get("name"): entry for entry in status.get(field) or ()}
    known = {container.get("name"): container for container in containers}
    for index, entry in enumerate(before.get(field) or ()):
        ended, name = (entry.get("state") or {}).get("terminated"), entry.get("name")
        if ended is None or name not in now or (now[name].get("state") or {}).get("terminated") is not None:
            continue
        if not _runs_again(known.get(name) or {}, policy, ended.get("exitCode", 0)):
            found.append(problems.forbidden(f"status.{field}[{index}].state", "may not be transitioned to non-terminated state"))


def _runs_again(container: Obj, policy: str, code: int) -> bool:
    """By the container's own rules, its own policy, or the pod's."""
    for rule in container.get("restartPolicyRules") or ():
        codes = rule.get("exitCodes") or {}
        if (code in (codes.get("values") or ())) == (codes.get("operator") == "In"):
            return True
    own = container.get("restartPolicy") or policy
    return own == "Always" or (own == "OnFailure" and code != 0)


def _addresses(found: list[Problem], field: str, listed: Sequence[Obj], single: str | None) -> None:
    at = f"status.{field}"
    addresses = [entry.get("ip", "") for entry in listed]
    if single is not None and addresses and addresses[0] != single:
        found.append(problems.invalid(f"{at}[0].ip", addresses[0], "must be equal to `hostIP`"))
    for index, address in enumerate(addresses):
        found += validate.each(f"{at}[{index}]", address, ipaddresses.ip(address))
    if len(addresses) > 1:
        if len(addresses) > 2 or ipaddresses.is_ipv6(addresses[0]) == ipaddresses.is_ipv6(addresses[1]):
            shown = [{"IP": address} for address in addresses]
            found.append(problems.invalid(at, shown, "may specify no more than one IP for each IP family"))
        for index, address in enumerate(addresses):
            if address in addresses[:index]:
                found.append(problems.duplicate(f"{at}[{index}]", {"IP": address}))
