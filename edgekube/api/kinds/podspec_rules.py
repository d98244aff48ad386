"""Validation of a pod's spec, in a pod or in a template (ValidatePodSpec in pkg/apis/core/validation/validation.go)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgekube.api import ipaddresses, pods, problems, quantity, validate
from edgekube.api.kinds import affinity_validation, container_rules, resource_rules, scheduling_rules, security_rules
from edgekube.api.kinds.volume_rules import volumes
from edgekube.api.types import Obj
from edgekube.errors import Problem

_RESTART = ("Always", "OnFailure", "Never")
_DNS = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_MAX_INT32 = 2**31 - 1
_NAMES: Mapping[str, Callable[[str], Sequence[str]]] = {
    "serviceAccountName": validate.subdomain,
    "nodeName": validate.subdomain,
    "hostname": validate.label,
    "subdomain": validate.label,
    "priorityClassName": validate.subdomain,
    "runtimeClassName": validate.subdomain,
}


def pod_spec(found: list[Problem], at: str, spec: Obj, *, pod: str, in_pod: bool) -> None:
    """`pod` is the pod's name; in a template it is empty and `in_pod` False."""
    get = spec.get
    if get("terminationGracePeriodSeconds") is None:
        found.append(problems.required(f"{at}.terminationGracePeriodSeconds"))
    good = volumes(found, f"{at}.volumes", get("volumes") or (), pod)
    claims = {claim["name"] for claim in get("resourceClaims") or () if claim.get("name")}
    if get("resourceClaims"):
        _resource_claims(found, f"{at}.resourceClaims", spec["resourceClaims"])
    around = container_rules.Around(
        volumes=good, claims=claims, grace=get("terminationGracePeriodSeconds"), restart=get("restartPolicy", ""),
        host_users=get("hostUsers") is not False, in_pod=in_pod,
    )  # fmt: skip
    main = get("containers") or ()
    container_rules.containers(found, f"{at}.containers", main, around)
    if get("initContainers"):
        container_rules.init_containers(found, f"{at}.initContainers", spec["initContainers"], main, around)
    if get("ephemeralContainers"):
        container_rules.ephemeral_containers(found, f"{at}.ephemeralContainers", spec, around)
    if get("resources"):
        _pod_resources(found, f"{at}.resources", spec)
    if get("hostNetwork"):
        _host_network(found, at, main, in_pod=in_pod)
    _one_of(found, f"{at}.restartPolicy", get("restartPolicy", ""), _RESTART)
    _one_of(found, f"{at}.dnsPolicy", get("dnsPolicy", ""), _DNS)
    if get("nodeSelector"):
        found += validate.labels(f"{at}.nodeSelector", spec["nodeSelector"])
    _rare(found, at, spec)
    for name, check in _NAMES.items():
        value = get(name)
        if value and (wrong := check(value)):
            found += validate.each(f"{at}.{name}", value, wrong)
    deadline = get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _MAX_INT32:
        found.append(problems.invalid(f"{at}.activeDeadlineSeconds", deadline, validate.between(1, _MAX_INT32)))


def _one_of(found: list[Problem], at: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        found.append(problems.not_supported(at, value, allowed) if value else problems.required(at))


def _rare(found: list[Problem], at: str, spec: Obj) -> None:
    """Fields that few pods have: one look into the table each."""
    for name, check in _RARE.items():
        value = spec.get(name)
        if value:
            check(found, f"{at}.{name}", value)
    if spec.get("securityContext"):
        security_rules.pod_context(found, f"{at}.securityContext", spec["securityContext"], spec)
    if spec.get("dnsConfig") is not None or spec.get("dnsPolicy") == "None":
        _dns(found, f"{at}.dnsConfig", spec.get("dnsConfig"), spec.get("dnsPolicy", ""))
    if spec.get("hostUsers") is False:
        security_rules.host_users(found, at, spec)
    if spec.get("hostPID") and spec.get("shareProcessNamespace"):
        why = "ShareProcessNamespace and HostPID cannot both be enabled"
        found.append(problems.invalid(f"{at}.securityContext.shareProcessNamespace", True, why))
    if spec.get("os") is not None:
        security_rules.operating_system(found, at, spec)
    if spec.get("setHostnameAsFQDN") and spec.get("hostnameOverride"):
        found.append(problems.forbidden(f"{at}.setHostnameAsFQDN", "cannot be set when hostnameOverride is set"))


def _host_aliases(found: list[Problem], at: str, listed: Sequence[Obj]) -> None:
    for index, alias in enumerate(listed):
        found += validate.each(f"{at}[{index}].ip", alias.get("ip", ""), ipaddresses.ip(alias.get("ip", "")))
        for number, name in enumerate(alias.get("hostnames") or ()):
            found += validate.each(f"{at}[{index}].hostnames[{number}]", name, validate.subdomain(name))


def _readiness_gates(found: list[Problem], at: str, listed: Sequence[Obj]) -> None:
    for index, gate in enumerate(listed):
        kind = gate.get("conditionType", "")
        found += validate.each(f"{at}[{index}].conditionType", kind, validate.qualified(kind))


def _preemption(found: list[Problem], at: str, policy: str) -> None:
    if policy not in ("PreemptLowerPriority", "Never"):
        found.append(problems.not_supported(at, policy, ("PreemptLowerPriority", "Never")))


def _overhead(found: list[Problem], at: str, amounts: Mapping[str, str]) -> None:
    resource_rules.requirements(found, at, {"limits": amounts}, ())


def _hostname_override(found: list[Problem], at: str, name: str) -> None:
    if len(name) > 64:
        found.append(problems.too_long(at, 64))
    found += validate.each(at, name, validate.subdomain(name))


_RARE: Mapping[str, Callable[[list[Problem], str, Any], None]] = {
    "affinity": affinity_validation.affinity,
    "readinessGates": _readiness_gates,
    "schedulingGates": scheduling_rules.gates,
    "topologySpreadConstraints": affinity_validation.spread,
    "tolerations": affinity_validation.tolerations,
    "hostAliases": _host_aliases,
    "preemptionPolicy": _preemption,
    "overhead": _overhead,
    "hostnameOverride": _hostname_override,
}


def _host_network(found: list[Problem], at: str, main: Sequence[Obj], *, in_pod: bool) -> None:
    for index, container in enumerate(main):
        for number, port in enumerate(container.get("ports") or ()):
            host = port.get("hostPort", 0)
            if (in_pod or host) and host != port.get("containerPort", 0):
                there = f"{at}.containers[{index}].ports[{number}].hostPort"
                found.append(problems.invalid(there, host, "must match `containerPort` when `hostNetwork` is true"))


def _dns(found: list[Problem], at: str, config: Obj | None, policy: str) -> None:
    if policy == "None":
        if config is None:
            found.append(problems.required(at, "must provide `dnsConfig` when `dnsPolicy` is None"))
            return
        if not config.get("nameservers"):
            found.append(problems.required(f"{at}.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None"))
            return
    config = config or {}
    servers, searches = config.get("nameservers") or (), config.get("searches") or ()
    if len(servers) > 3:
        found.append(problems.invalid(f"{at}.nameservers", servers, "must not have more than 3 nameservers"))
    for index, address in enumerate(servers):
        found += validate.each(f"{at}.nameservers[{index}]", address, ipaddresses.ip(address))
    if len(searches) > 32:
        found.append(problems.invalid(f"{at}.searches", searches, "must not have more than 32 search paths"))
    if len(" ".join(searches)) > 2048:
        why = "must not have more than 2048 characters (including spaces) in the search list"
        found.append(problems.invalid(f"{at}.searches", searches, why))
    for index, search in enumerate(searches):
        if search != ".":
            name = search.removesuffix(".")
            found += validate.each(f"{at}.searches[{index}]", name, validate.subdomain_with_underscore(name))
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            found += [problems.required(f"{at}.options[{index}]", "must not be empty")]


def _resource_claims(found: list[Problem], at: str, listed: Sequence[Obj]) -> None:
    seen: set[str] = set()
    for index, claim in enumerate(listed):
        here, name = f"{at}[{index}]", claim.get("name", "")
        if not name:
            found.append(problems.required(f"{here}.name"))
        elif name in seen:
            found.append(problems.duplicate(f"{here}.name", name))
        else:
            found += validate.each(f"{here}.name", name, validate.label(name))
        seen.add(name)
        sources = [field for field in ("resourceClaimName", "resourceClaimTemplateName") if claim.get(field) is not None]
        if len(sources) > 1:
            why = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            found.append(problems.invalid(here, claim, why))
        elif not sources:
            found.append(problems.invalid(here, claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"))
        for field in sources:
            found += validate.each(f"{here}.{field}", claim[field], validate.subdomain(claim[field]))


def _pod_resources(found: list[Problem], at: str, spec: Obj) -> None:
    """validatePodResources: the pod's own requests cover those of its containers."""
    own = spec["resources"]
    if own.get("claims") is not None:
        found.append(problems.forbidden(f"{at}.claims", "claims cannot be set for Resources at pod-level"))
    resource_rules.requirements(found, at, {**own, "claims": None}, (), resource_rules.pod_resource_name)
    inner = {name: value for name, value in spec.items() if name not in ("resources", "overhead")}
    asked = own.get("requests") or {}
    for name, total in pods.requests({"spec": inner}).items():
        if total > pods.amount(name, asked.get(name, "0")) and (name in ("cpu", "memory") or resource_rules.is_huge(name)):
            shown = quantity.format_milli(total) if name == "cpu" else quantity.format_bytes(total)
            why = f"must be greater than or equal to aggregate container requests of {shown}"
            found.append(problems.invalid(f"{at}.requests[{name}]", asked.get(name, "0"), why))
    most = own.get("limits") or {}
    for index, container in enumerate(spec.get("containers") or ()):
        for name, text in ((container.get("resources") or {}).get("limits") or {}).items():
            if name in most and quantity.parse(text) > quantity.parse(most[name]):
                there = f"{at}.containers[{index}][{name}].limits"
                found.append(problems.invalid(there, text, f"must be less than or equal to pod limits of {most[name]}"))
