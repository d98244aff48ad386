"""NetworkPolicies that are refused, in upstream's words; defaults; columns; and the kind that nodes read."""

import copy
from typing import Any

import pytest

from edgekube.api import catalog, decoding
from edgekube.api.kinds.networkpolicy import NETWORK_POLICY
from edgekube.api.kinds.policyslice import POLICY_SLICE
from edgekube.api.schema import SCHEMA
from edgekube.api.table import render
from edgekube.api.types import Obj

INVALID, REQUIRED, FORBIDDEN, UNSUPPORTED = "FieldValueInvalid", "FieldValueRequired", "FieldValueForbidden", "FieldValueNotSupported"
BETWEEN = "must be between 1 and 65535, inclusive"
CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
SUBSET = "must be a strict subset of `cidr`"


def policy(**spec: Any) -> Obj:
    return {"metadata": {"name": "p", "namespace": "default"}, "spec": {"podSelector": {}, **spec}}


def problems(spec: Any, old: Obj | None = None) -> list[tuple[str, str, str]]:
    new = policy(**spec)
    NETWORK_POLICY.default(new)
    frozen = copy.deepcopy((new, old))
    found = list(NETWORK_POLICY.validate(new, old))
    assert (new, old) == frozen
    return [(one.field, one.reason, one.message) for one in found]


def ports(*entries: Any) -> Obj:
    return {"ingress": [{"ports": list(entries)}]}


def peers(*entries: Any) -> Obj:
    return {"egress": [{"to": list(entries)}]}


def block(cidr: str, *exceptions: str) -> Obj:
    return peers({"ipBlock": {"cidr": cidr} | ({"except": list(exceptions)} if exceptions else {})})


PORT = "spec.ingress[0].ports[0]"
PEER = "spec.egress[0].to[0]"


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"ingress": [{}]},
        {"policyTypes": ["Ingress", "Egress"]},
        ports({"port": 80}, {"protocol": "UDP"}, {"protocol": "SCTP", "port": 7777}, {"port": "http"}, {"port": 32000, "endPort": 32768}),
        ports({"port": 32000, "endPort": 32000}),
        peers({"podSelector": {}}, {"namespaceSelector": {}}, {"podSelector": {"matchLabels": {"a": "b"}}, "namespaceSelector": {}}),
        block("0.0.0.0/0"),
        block("192.168.0.0/16", "192.168.3.0/24", "192.168.4.0/24"),
        block("fd00:192:168::/48", "fd00:192:168:3::/64"),
    ],
)
def test_accepted(spec):
    assert problems(spec) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (ports({"protocol": "ICMP"}), (f"{PORT}.protocol", UNSUPPORTED, 'Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP"')),
        (ports({"port": 0}), (f"{PORT}.port", INVALID, f"Invalid value: 0: {BETWEEN}")),
        (ports({"port": 123456789}), (f"{PORT}.port", INVALID, f"Invalid value: 123456789: {BETWEEN}")),
        (ports({"port": "a_b"}), (f"{PORT}.port", INVALID, 'Invalid value: "a_b": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)')),
        (ports({"endPort": 80}), (f"{PORT}.endPort", INVALID, "Invalid value: 80: may not be specified when `port` is not specified")),
        (ports({"port": "dns", "endPort": 80}), (f"{PORT}.endPort", INVALID, "Invalid value: 80: may not be specified when `port` is non-numeric")),
        (ports({"port": 80, "endPort": 79}), (f"{PORT}.endPort", INVALID, "Invalid value: 79: must be greater than or equal to `port`")),
        (ports({"port": 80, "endPort": 65536}), (f"{PORT}.endPort", INVALID, f"Invalid value: 65536: {BETWEEN}")),
        (peers({}), (PEER, REQUIRED, "Required value: must specify a peer")),
        (
            peers({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}),
            (PEER, FORBIDDEN, "Forbidden: may not specify both ipBlock and another peer"),
        ),
        (block(""), (f"{PEER}.ipBlock.cidr", REQUIRED, "Required value")),
        (block("192.168.5.6"), (f"{PEER}.ipBlock.cidr", INVALID, f'Invalid value: "192.168.5.6": {CIDR}')),
        (
            block("192.168.5.6/16"),
            (f"{PEER}.ipBlock.cidr", INVALID, 'Invalid value: "192.168.5.6/16": must not have bits set beyond the prefix length'),
        ),
        (block("192.168.8.0/24", "fd00::1"), (f"{PEER}.ipBlock.except[0]", INVALID, f'Invalid value: "fd00::1": {CIDR}')),
        (block("192.168.8.0/24", "192.168.9.0/28"), (f"{PEER}.ipBlock.except[0]", INVALID, f'Invalid value: "192.168.9.0/28": {SUBSET}')),
        (block("192.168.0.0/16", "192.168.0.0/16"), (f"{PEER}.ipBlock.except[0]", INVALID, f'Invalid value: "192.168.0.0/16": {SUBSET}')),
        (block("192.168.0.0/16", "fd00::/64"), (f"{PEER}.ipBlock.except[0]", INVALID, f'Invalid value: "fd00::/64": {SUBSET}')),
        (
            {"policyTypes": ["foo", "bar", "baz"]},
            ("spec.policyTypes", INVALID, 'Invalid value: ["foo","bar","baz"]: may not specify more than two policyTypes'),
        ),
        ({"policyTypes": ["foo"]}, ("spec.policyTypes[0]", UNSUPPORTED, 'Unsupported value: "foo": supported values: "Ingress", "Egress"')),
        (
            {"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
            ("spec.podSelector.matchExpressions[0].values", REQUIRED, "Required value: must be specified when `operator` is 'In' or 'NotIn'"),
        ),
        (
            peers({"namespaceSelector": {"matchLabels": {"a": "-"}}}),
            (f"{PEER}.namespaceSelector.matchLabels", INVALID, 'Invalid value: "-": a valid label must be an empty string or consist of'),
        ),
    ],
)
def test_refused(spec, expected):
    (found,) = problems(spec)
    assert (found[0], found[1], found[2][: len(expected[2])]) == expected


def test_a_range_that_is_there_may_stay():
    old = policy(**block("192.168.5.6/16", "192.168.3.9/24"))
    assert problems(block("192.168.5.6/16", "192.168.3.9/24"), old) == []
    assert [field for field, _, _ in problems(block("192.168.5.7/16"), old)] == [f"{PEER}.ipBlock.cidr"]


@pytest.mark.parametrize(
    ("spec", "types"),
    [({}, ["Ingress"]), ({"egress": [{}]}, ["Ingress", "Egress"]), ({"ingress": [{}]}, ["Ingress"]), ({"policyTypes": ["Egress"]}, ["Egress"])],
)
def test_policy_types(spec, types):
    found = policy(**spec)
    NETWORK_POLICY.default(found)
    assert found["spec"]["policyTypes"] == types


def test_ports_are_tcp_and_empty_selectors_stay():
    found = policy(ingress=[{"ports": [{"port": 80}], "from": [{"podSelector": {}}, {"namespaceSelector": {}}]}], egress=[{"to": []}])
    found |= {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    decoding.clean(NETWORK_POLICY, found)
    NETWORK_POLICY.default(found)
    assert found["spec"]["ingress"] == [{"ports": [{"port": 80, "protocol": "TCP"}], "from": [{"podSelector": {}}, {"namespaceSelector": {}}]}]
    assert found["spec"]["egress"] == [{}]


def test_columns():
    row = render(NETWORK_POLICY, [policy(podSelector={"matchLabels": {"app": "web"}}), policy()], now=0.0, metadata={})
    assert [column["name"] for column in row["columnDefinitions"]] == ["Name", "Pod-Selector", "Age"]
    assert [cells["cells"][1] for cells in row["rows"]] == ["app=web", "<none>"]


def test_slices_have_types_of_their_own_and_stay_in_memory():
    assert POLICY_SLICE.ephemeral
    assert not POLICY_SLICE.categories  # not in `kubectl get all`
    assert catalog.find("networking.edgekube.io", "v1alpha1", "policyslices") is POLICY_SLICE
    spec = {"podSelector": {}, "peers": [{"nodes": {"pi": ["10.42.0.7"]}}], "ingress": [{"peers": [0], "wrong": 1}]}
    assert SCHEMA.check(POLICY_SLICE.schema, {"metadata": {"name": "a"}, "spec": spec}).unknown == ["spec.ingress[0].wrong"]
    assert "cannot unmarshal string" in SCHEMA.check(POLICY_SLICE.schema, {"spec": {"policyTypes": "Ingress"}}).error
