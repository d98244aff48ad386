"""Validation of containers, init containers and ephemeral containers (pkg/apis/core/validation/validation.go)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekube.api import problems, validate
from edgekube.api.kinds import env_rules, mount_rules, probe_rules, resource_rules, security_rules
from edgekube.api.types import Obj
from edgekube.errors import Problem

_PULL = ("Always", "IfNotPresent", "Never")
_MESSAGES = ("File", "FallbackToLogsOnError")
_RESTART = ("Always", "Never", "OnFailure")
_ACTIONS = ("Restart", "RestartAllContainers")
_MAX_RULES, _MAX_CODES = 20, 255
_NOT_EPHEMERAL = ("ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resizePolicy", "restartPolicy",
                  "restartPolicyRules")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Around:
    """What the rules need to know of the pod around a container. `in_pod` is False in a template."""

    volumes: Mapping[str, Obj]
    claims: Collection[str]
    grace: int | None
    restart: str
    host_users: bool
    in_pod: bool


def containers(found: list[Problem], at: str, listed: Sequence[Obj], around: Around) -> None:
    """The main containers."""
    if not listed:
        found.append(problems.required(at))
        return
    names: set[str] = set()
    for index, container in enumerate(listed):
        here = f"{at}[{index}]"
        _common(found, here, container, around)
        name = container.get("name", "")
        if name in names:
            found.append(problems.duplicate(f"{here}.name", name))
        names.add(name)
        if container.get("lifecycle") is not None:
            probe_rules.lifecycle(found, f"{here}.lifecycle", container["lifecycle"], around.grace)
        probe_rules.probes(found, here, container, around.grace)
        _restart_policy(found, here, container)
    env_rules.host_ports(found, at, list(enumerate(listed)))


def init_containers(found: list[Problem], at: str, listed: Sequence[Obj], main: Sequence[Obj], around: Around) -> None:
    """What runs before the main containers, and beside them if it restarts always."""
    names = {container.get("name", "") for container in main}
    for index, container in enumerate(listed):
        here = f"{at}[{index}]"
        _common(found, here, container, around)
        _restart_policy(found, here, container)
        name = container.get("name", "")
        if name in names:
            found.append(problems.duplicate(f"{here}.name", name))
        elif name:
            names.add(name)
        env_rules.host_ports(found, at, [(0, container)])
        if container.get("restartPolicy") == "Always":
            if container.get("lifecycle") is not None:
                probe_rules.lifecycle(found, f"{here}.lifecycle", container["lifecycle"], around.grace)
            probe_rules.probes(found, here, container, around.grace)
            continue
        for field in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
            if container.get(field) is not None:
                why = "may not be set for init containers without restartPolicy=Always"
                found.append(problems.forbidden(f"{here}.{field}", why))


def ephemeral_containers(found: list[Problem], at: str, spec: Obj, around: Around) -> None:
    """What was added to a running pod for debugging."""
    others = {c.get("name", "") for group in ("containers", "initContainers") for c in spec.get(group) or ()}
    names = set(others)
    for index, container in enumerate(spec["ephemeralContainers"]):
        here = f"{at}[{index}]"
        _common(found, here, container, around)
        name, target = container.get("name", ""), container.get("targetContainerName", "")
        if not around.in_pod:
            _image_space(found, here, container)
        if name in names:
            found.append(problems.duplicate(f"{here}.name", name))
        names.add(name)
        if target and target not in others:
            found.append(problems.not_found(f"{here}.targetContainerName", target))
        fields = [field for field in _NOT_EPHEMERAL if container.get(field) is not None]
        fields += ["resources"] if container.get("resources") else []
        found += [problems.forbidden(f"{here}.{field}", "cannot be set for an Ephemeral Container") for field in fields]
        for number, mount in enumerate(container.get("volumeMounts") or ()):
            for field in ("subPath", "subPathExpr"):
                if mount.get(field):
                    there = f"{here}.volumeMounts[{number}].{field}"
                    found.append(problems.forbidden(there, "cannot be set for an Ephemeral Container"))


def _image_space(found: list[Problem], at: str, container: Obj) -> None:
    image = container.get("image", "")
    if image != image.strip():
        found.append(problems.invalid(f"{at}.image", image, "must not have leading or trailing whitespace"))


def _common(found: list[Problem], at: str, container: Obj, around: Around) -> None:
    get = container.get
    name = get("name")
    if not name:
        found.append(problems.required(f"{at}.name"))
    elif wrong := validate.label(name):
        found += validate.each(f"{at}.name", name, wrong)
    if not get("image"):
        found.append(problems.required(f"{at}.image"))
    elif around.in_pod:
        _image_space(found, at, container)
    _one_of(found, f"{at}.terminationMessagePolicy", get("terminationMessagePolicy", ""), _MESSAGES)
    if ports := get("ports"):
        env_rules.ports(found, f"{at}.ports", ports)
    if env := get("env"):
        env_rules.env(found, f"{at}.env", env)
    if env_from := get("envFrom"):
        env_rules.env_from(found, f"{at}.envFrom", env_from)
    if get("volumeMounts"):
        mount_rules.mounts(found, f"{at}.volumeMounts", container, around.volumes)
    if get("volumeDevices"):
        mount_rules.devices(found, f"{at}.volumeDevices", container, around.volumes)
    _one_of(found, f"{at}.imagePullPolicy", get("imagePullPolicy", ""), _PULL)
    if resources := get("resources"):
        resource_rules.requirements(found, f"{at}.resources", resources, around.claims)
    if policies := get("resizePolicy"):
        _resize(found, f"{at}.resizePolicy", policies, around.restart)
    if context := get("securityContext"):
        security_rules.container_context(found, f"{at}.securityContext", context, host_users=around.host_users)
    if (signal := (get("lifecycle") or {}).get("stopSignal")) is not None and not signal.startswith("SIG"):
        found.append(problems.not_supported(f"{at}.lifecycle.stopSignal", signal, ()))


def _one_of(found: list[Problem], at: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        found.append(problems.not_supported(at, value, allowed) if value else problems.required(at))


def _restart_policy(found: list[Problem], at: str, container: Obj) -> None:
    policy, rules = container.get("restartPolicy"), container.get("restartPolicyRules") or ()
    if policy is None:
        if rules:
            found.append(problems.required(f"{at}.restartPolicy", "must specify restartPolicy when restart rules are used"))
        return
    if policy not in _RESTART:
        found.append(problems.not_supported(f"{at}.restartPolicy", policy, _RESTART))
    if len(rules) > _MAX_RULES:
        found.append(problems.too_many(f"{at}.restartPolicyRules", len(rules), _MAX_RULES))
    for index, rule in enumerate(rules):
        _restart_rule(found, f"{at}.restartPolicyRules[{index}]", rule)


def _restart_rule(found: list[Problem], at: str, rule: Mapping[str, Any]) -> None:
    if rule.get("action", "") not in _ACTIONS:
        found.append(problems.not_supported(f"{at}.action", rule.get("action", ""), _ACTIONS))
    codes = rule.get("exitCodes")
    if codes is None:
        found.append(problems.required(f"{at}.exitCodes", "must be specified"))
        return
    if codes.get("operator", "") not in ("In", "NotIn"):
        found.append(problems.not_supported(f"{at}.exitCodes.operator", codes.get("operator", ""), ("In", "NotIn")))
    values = codes.get("values") or ()
    if len(values) > _MAX_CODES:
        found.append(problems.too_many(f"{at}.exitCodes.values", len(values), _MAX_CODES))


def _resize(found: list[Problem], at: str, policies: Sequence[Obj], restart: str) -> None:
    seen: set[str] = set()
    for index, policy in enumerate(policies):
        resource, how = policy.get("resourceName", ""), policy.get("restartPolicy", "")
        if resource in seen:
            found.append(problems.duplicate(f"{at}[{index}]", resource))
        seen.add(resource)
        _one_of(found, at, resource, ("cpu", "memory"))
        _one_of(found, at, how, ("NotRequired", "RestartContainer"))
        if restart == "Never" and how != "NotRequired":
            found.append(problems.invalid(at, how, "must be 'NotRequired' when `restartPolicy` is 'Never'"))
