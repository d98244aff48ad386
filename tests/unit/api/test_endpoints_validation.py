"""Endpoints and EndpointSlices that are refused."""

from typing import Any

import pytest

from edgekube.api.kinds.endpoints import ENDPOINTS
from edgekube.api.kinds.endpointslice import ENDPOINT_SLICE
from edgekube.api.types import Obj

INVALID, REQUIRED, MANY = "FieldValueInvalid", "FieldValueRequired", "FieldValueTooMany"
UNSUPPORTED, DUPLICATE = "FieldValueNotSupported", "FieldValueDuplicate"
ADDRESS = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
LOOPBACK = "may not be in the loopback range (127.0.0.0/8, ::1/128)"
PROTOCOLS = 'supported values: "SCTP", "TCP", "UDP"'


def told(found: Any) -> list[tuple[str, str, str]]:
    return [(one.field, one.reason, one.message) for one in found]


def endpoints(*subsets: Obj) -> Obj:
    found = {"metadata": {"name": "x", "namespace": "default"}, "subsets": list(subsets)}
    ENDPOINTS.default(found)
    return found


HERE = [{"ip": "10.0.0.1"}]


@pytest.mark.parametrize(
    ("subset", "field", "reason", "message"),
    [
        ({}, "subsets[0]", REQUIRED, "Required value: must specify `addresses` or `notReadyAddresses`"),
        ({"addresses": [{"ip": "x"}]}, "subsets[0].addresses[0].ip", INVALID, f'Invalid value: "x": {ADDRESS}'),
        ({"notReadyAddresses": [{"ip": "127.0.0.1"}]}, "subsets[0].notReadyAddresses[0].ip", INVALID,
         f'Invalid value: "127.0.0.1": {LOOPBACK}'),
        ({"addresses": [{"ip": "10.0.0.1", "hostname": "a.b"}]}, "subsets[0].addresses[0].hostname", INVALID,
         'Invalid value: "a.b": must not contain dots'),
        ({"addresses": HERE, "ports": [{"port": 1}, {"port": 2, "name": "b"}]}, "subsets[0].ports[0].name", REQUIRED, "Required value"),
        ({"addresses": HERE, "ports": [{"port": 0}]}, "subsets[0].ports[0].port", INVALID,
         "Invalid value: 0: must be between 1 and 65535, inclusive"),
        ({"addresses": HERE, "ports": [{"port": 1, "protocol": "x"}]}, "subsets[0].ports[0].protocol", UNSUPPORTED,
         f'Unsupported value: "x": {PROTOCOLS}'),
        ({"addresses": HERE, "ports": [{"port": 1, "name": "a.b"}]}, "subsets[0].ports[0].name", INVALID,
         'Invalid value: "a.b": must not contain dots'),
        ({"addresses": HERE, "ports": [{"port": 1, "appProtocol": "/x"}]}, "subsets[0].ports[0].appProtocol", INVALID,
         'Invalid value: "/x": prefix part must be non-empty'),
    ],
)  # fmt: skip
def test_endpoints(subset: Obj, field: str, reason: str, message: str) -> None:
    assert (field, reason, message) in told(ENDPOINTS.validate(endpoints(subset), None))


def test_endpoints_that_are_fine() -> None:
    good = endpoints(
        {"addresses": [{"ip": "10.0.0.1", "nodeName": "a.b", "hostname": "c"}], "ports": [{"port": 1}]},
        {"notReadyAddresses": [{"ip": "2001:db8::1"}]},
    )
    assert told(ENDPOINTS.validate(good, None)) == []
    assert told(ENDPOINTS.validate(good, good)) == []
    assert told(ENDPOINTS.validate(endpoints(), None)) == []


def test_stored_addresses_may_stay() -> None:
    old = endpoints({"addresses": [{"ip": "010.0.0.1"}]})
    assert told(ENDPOINTS.validate(old, old)) == []
    assert told(ENDPOINTS.validate(old, None)) == [
        ("subsets[0].addresses[0].ip", INVALID, 'Invalid value: "010.0.0.1": must not have leading 0s')
    ]


def piece(**fields: Any) -> Obj:
    found = {"metadata": {"name": "x", "namespace": "default"}, "addressType": "IPv4", **fields}
    ENDPOINT_SLICE.default(found)
    return found


def at(**fields: Any) -> dict[str, Any]:
    return {"endpoints": [{"addresses": ["10.0.0.1"], **fields}]}


@pytest.mark.parametrize(
    ("fields", "field", "reason", "message"),
    [
        ({"addressType": ""}, "addressType", REQUIRED, "Required value"),
        ({"addressType": "IP"}, "addressType", UNSUPPORTED, 'Unsupported value: "IP": supported values: "FQDN", "IPv4", "IPv6"'),
        ({"endpoints": [{"addresses": ["10.0.0.1"]}] * 1001}, "endpoints", MANY, "Too many: 1001: must have at most 1000 items"),
        (at(addresses=[]), "endpoints[0].addresses", REQUIRED, "Required value: must contain at least 1 address"),
        (at(addresses=["10.0.0.1"] * 101), "endpoints[0].addresses", MANY, "Too many: 101: must have at most 100 items"),
        (at(addresses=["x"]), "endpoints[0].addresses[0]", INVALID, f'Invalid value: "x": {ADDRESS}'),
        (at(addresses=["2001:db8::1"]), "endpoints[0].addresses[0]", INVALID, 'Invalid value: "2001:db8::1": must be an IPv4 address'),
        (at(addresses=["127.0.0.1"]), "endpoints[0].addresses[0]", INVALID, f'Invalid value: "127.0.0.1": {LOOPBACK}'),
        ({"addressType": "IPv6", **at()}, "endpoints[0].addresses[0]", INVALID, 'Invalid value: "10.0.0.1": must be an IPv6 address'),
        ({"addressType": "FQDN", **at(addresses=["x"])}, "endpoints[0].addresses[0]", INVALID,
         'Invalid value: "x": should be a domain with at least two segments separated by dots'),
        (at(hostname="a.b"), "endpoints[0].hostname", INVALID, 'Invalid value: "a.b": must not contain dots'),
        (at(deprecatedTopology={str(number): "a" for number in range(17)}), "endpoints[0].deprecatedTopology", MANY,
         "Too many: 17: must have at most 16 items"),
        (at(hints={"forZones": [{"name": str(number)} for number in range(9)]}), "endpoints[0].hints.forZones", MANY,
         "Too many: 9: must have at most 8 items"),
        (at(hints={"forZones": [{"name": "a"}, {"name": "a"}]}), "endpoints[0].hints.forZones[1].name", DUPLICATE, 'Duplicate value: "a"'),
        ({"ports": [{"name": "a"}, {"name": "a"}]}, "ports[1].name", DUPLICATE, 'Duplicate value: "a"'),
        ({"ports": [{}, {}]}, "ports[1].name", DUPLICATE, 'Duplicate value: ""'),
        ({"ports": [{"name": "a.b"}]}, "ports[0].name", INVALID, 'Invalid value: "a.b": must not contain dots'),
        ({"ports": [{"protocol": "x"}]}, "ports[0].protocol", UNSUPPORTED, f'Unsupported value: "x": {PROTOCOLS}'),
        ({"ports": [{"name": str(number)} for number in range(20001)]}, "ports", MANY, "Too many: 20001: must have at most 20000 items"),
    ],
)  # fmt: skip
def test_slices(fields: Obj, field: str, reason: str, message: str) -> None:
    assert told(ENDPOINT_SLICE.validate(piece(**fields), None)) == [(field, reason, message)]


def test_slices_that_are_fine() -> None:
    for good in (
        piece(),
        piece(**at(), ports=[{"name": "http", "port": 80}, {}]),
        piece(addressType="FQDN", **at(addresses=["a.example.com"])),
    ):
        assert told(ENDPOINT_SLICE.validate(good, None)) == []
        assert told(ENDPOINT_SLICE.validate(good, good)) == []
    changed = told(ENDPOINT_SLICE.validate(piece(addressType="IPv6"), piece()))
    assert changed == [("addressType", INVALID, 'Invalid value: "IPv6": field is immutable')]
