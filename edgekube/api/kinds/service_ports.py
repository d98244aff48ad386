"""The ports of a Service, and what Endpoints and EndpointSlices share of their rules (core/validation validateServicePort). Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgekube.api import problems, validate
from edgekube.errors import Problem

PROTOCOLS = ("SCTP", "TCP", "UDP")

Spec = Mapping[str, Any]


def check_ports(spec: Spec) -> Iterator[Problem]:
    """Names, numbers, protocols and targets."""
    ports: Sequence[Spec] = spec.get("ports") or ()
    names: set[str] = set()
    for index, port in enumerate(ports):
        at, name, number = f"spec.ports[{index}]", port.get("name") or "", port.get("port") or 0
        if name:
            yield from validate.each(f"{at}.name", name, validate.label(name))
            if name in names:
                yield problems.duplicate(f"{at}.name", name)
            names.add(name)
        elif len(ports) > 1:
            yield problems.required(f"{at}.name")
        yield from validate.each(f"{at}.port", number, validate.port_number(number))
        yield from protocol(f"{at}.protocol", port.get("protocol"))
        yield from port_or_name(f"{at}.targetPort", port.get("targetPort") or 0)
        if port.get("appProtocol") is not None:
            yield from validate.each(f"{at}.appProtocol", port["appProtocol"], validate.qualified(port["appProtocol"]))


def protocol(field: str, found: str | None) -> Iterator[Problem]:
    """A port's protocol is one of the three."""
    if not found:
        yield problems.required(field)
    elif found not in PROTOCOLS:
        yield problems.not_supported(field, found, PROTOCOLS)


def port_or_name(field: str, value: int | str) -> Iterator[Problem]:
    """ValidatePortNumOrName."""
    messages = validate.port_number(value) if isinstance(value, int) else validate.port_name(value)
    yield from validate.each(field, value, messages)


def check_node_ports(spec: Spec) -> Iterator[Problem]:
    """Only for the types that have them, and each once per protocol."""
    seen: set[tuple[Any, int]] = set()
    for index, port in enumerate(spec.get("ports") or ()):
        number = port.get("nodePort")
        if number and spec.get("type") == "ClusterIP":
            yield problems.forbidden(f"spec.ports[{index}].nodePort", "may not be used when `type` is 'ClusterIP'")
        if number and (port.get("protocol"), number) in seen:
            yield problems.duplicate(f"spec.ports[{index}].nodePort", number)
        seen.add((port.get("protocol"), number))


def check_duplicates(spec: Spec) -> Iterator[Problem]:
    """One port of one protocol appears once."""
    seen: set[tuple[Any, Any]] = set()
    for index, port in enumerate(spec.get("ports") or ()):
        key = (port.get("protocol") or "", port.get("port") or 0)
        if key in seen:  # shown as upstream's internal type, which has names in Go's spelling
            shown = {"Name": "", "Protocol": key[0], "AppProtocol": None, "Port": key[1], "TargetPort": 0, "NodePort": 0}
            yield problems.duplicate(f"spec.ports[{index}]", shown)
        seen.add(key)
