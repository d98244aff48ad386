"""Validation of probes, lifecycle hooks and what they call (pkg/apis/core/validation/validation.go)."""

import re
from typing import Any

from edgekube.api import problems, validate
from edgekube.api.types import Obj
from edgekube.errors import Problem

_HEADER = re.compile(r"[-A-Za-z0-9]+").fullmatch
_HEADER_TEXT = (
    "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is "
    "'[-A-Za-z0-9]+')"
)
_PROBE_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_HOOK_HANDLERS = ("exec", "httpGet", "tcpSocket", "sleep")
_NUMBERS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")


def probes(found: list[Problem], at: str, container: Obj, grace: int | None) -> None:
    """All probes of one container."""
    if "livenessProbe" in container:
        _probe(found, f"{at}.livenessProbe", container["livenessProbe"], grace, once=True)
    if "readinessProbe" in container:
        probe = container["readinessProbe"]
        _probe(found, f"{at}.readinessProbe", probe, grace, once=False)
        if probe.get("terminationGracePeriodSeconds") is not None:
            there = f"{at}.readinessProbe.terminationGracePeriodSeconds"
            found.append(problems.invalid(there, probe["terminationGracePeriodSeconds"], "must not be set for readinessProbes"))
    if "startupProbe" in container:
        _probe(found, f"{at}.startupProbe", container["startupProbe"], grace, once=True)


def _probe(found: list[Problem], at: str, probe: Obj, grace: int | None, *, once: bool) -> None:
    _handler(found, at, probe, _PROBE_HANDLERS, grace)
    for name in _NUMBERS:
        number = probe.get(name, 0)
        if number < 0:
            found.append(problems.invalid(f"{at}.{name}", number, validate.NOT_NEGATIVE))
    own = probe.get("terminationGracePeriodSeconds")
    if own is not None and own <= 0:
        found.append(problems.invalid(f"{at}.terminationGracePeriodSeconds", own, validate.POSITIVE))
    if once and probe.get("successThreshold", 0) != 1:
        found.append(problems.invalid(f"{at}.successThreshold", probe.get("successThreshold", 0), "must be 1"))


def lifecycle(found: list[Problem], at: str, hooks: Obj, grace: int | None) -> None:
    """postStart and preStop."""
    for name in ("postStart", "preStop"):
        if hooks.get(name) is not None:
            _handler(found, f"{at}.{name}", hooks[name], _HOOK_HANDLERS, grace)


def _handler(found: list[Problem], at: str, handler: Obj, kinds: tuple[str, ...], grace: int | None) -> None:
    seen = 0
    for kind in kinds:
        action = handler.get(kind)
        if action is None:
            continue
        seen += 1
        if seen > 1:
            found.append(problems.forbidden(f"{at}.{kind}", "may not specify more than 1 handler type"))
        elif kind == "exec":
            if not action.get("command"):
                found.append(problems.required(f"{at}.exec.command"))
        elif kind == "httpGet":
            _http(found, f"{at}.httpGet", action)
        elif kind == "sleep":
            _sleep(found, f"{at}.sleep", action, grace)
        else:
            port_or_name(found, f"{at}.{kind}.port", action.get("port", 0))
    if not seen:
        found.append(problems.required(at, "must specify a handler type"))


def _http(found: list[Problem], at: str, action: Obj) -> None:
    if not action.get("path"):
        found.append(problems.required(f"{at}.path"))
    port_or_name(found, f"{at}.port", action.get("port", 0))
    if action.get("scheme") not in ("HTTP", "HTTPS"):
        found.append(problems.not_supported(f"{at}.scheme", action.get("scheme", ""), ("HTTP", "HTTPS")))
    for name in (header.get("name", "") for header in action.get("httpHeaders") or ()):
        if not _HEADER(name):
            found += [problems.invalid(f"{at}.httpHeaders", name, _HEADER_TEXT)]


def port_or_name(found: list[Problem], at: str, port: Any) -> None:
    """ValidatePortNumOrName."""
    wrong = validate.port_name(port) if isinstance(port, str) else validate.port_number(port)
    if wrong:
        found += validate.each(at, port, wrong)


def _sleep(found: list[Problem], at: str, action: Obj, grace: int | None) -> None:
    seconds = action.get("seconds", 0)
    if grace is not None and not 0 <= seconds <= grace:
        why = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
        found.append(problems.invalid(at, seconds, why))
