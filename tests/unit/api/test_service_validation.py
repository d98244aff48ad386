"""Tables of Services that are refused, with the words upstream refuses them with."""

import copy
from typing import Any

import pytest

from edgekube.api.kinds.service import SERVICE
from edgekube.api.types import Obj
from edgekube.errors import Problem

INVALID, REQUIRED, FORBIDDEN = "FieldValueInvalid", "FieldValueRequired", "FieldValueForbidden"
UNSUPPORTED, DUPLICATE = "FieldValueNotSupported", "FieldValueDuplicate"
ONLY_BALANCER = "Forbidden: may only be used when `type` is 'LoadBalancer'"
BALANCER = {"type": "LoadBalancer"}
OUTSIDE = {"type": "NodePort"}
NAMED = {"type": "ExternalName", "externalName": "example.com", "clusterIP": None, "clusterIPs": None, "ports": None}


def service(**spec: Any) -> Obj:
    """As it is when it is judged: defaulted, with its address."""
    base = {
        "selector": {"a": "b"}, "ports": [{"port": 80}], "clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"],
        "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
    }  # fmt: skip
    if spec.get("type") == "ExternalName":
        base |= {"ipFamilies": None, "ipFamilyPolicy": None}
    found = {"metadata": {"name": "web", "namespace": "default"}, "spec": {k: v for k, v in {**base, **spec}.items() if v is not None}}
    SERVICE.default(found)
    return found


def problems(new: Obj, old: Obj | None = None) -> list[tuple[str, str, str]]:
    frozen = copy.deepcopy((new, old))
    found: list[Problem] = list(SERVICE.validate(new, old))
    assert (new, old) == frozen
    return [(one.field, one.reason, one.message) for one in found]


def port(**fields: Any) -> dict[str, Any]:
    return {"port": 80, **fields}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {
            "ports": [
                port(name="a"),
                port(name="b", protocol="UDP"),
                port(name="c", port=81, targetPort="http", appProtocol="kubernetes.io/h2c"),
            ]
        },
        {"clusterIP": "None", "clusterIPs": ["None"], "ports": None},
        {**OUTSIDE, "ports": [port(nodePort=30000)], "externalTrafficPolicy": "Local"},
        {**BALANCER, "loadBalancerSourceRanges": ["10.0.0.0/8 "], "loadBalancerClass": "example.com/x"},
        {**BALANCER, "externalTrafficPolicy": "Local", "healthCheckNodePort": 30001},
        {**NAMED},
        {**NAMED, "externalName": "example.com."},
        {"externalIPs": ["192.0.2.1"]},
        {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86400}}},
        {"trafficDistribution": "PreferSameNode"},
        {"ports": [port(protocol="SCTP")]},
        {"selector": {}},
    ],
)
def test_good(spec: dict[str, Any]) -> None:
    assert problems(service(**spec)) == []


LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric "
    "character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
ADDRESS = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
RANGE = "must be between 1 and 65535, inclusive"
NONE = {"clusterIP": "None", "clusterIPs": ["None"]}


@pytest.mark.parametrize(
    ("spec", "field", "reason", "message"),
    [
        ({"ports": []}, "spec.ports", REQUIRED, "Required value"),
        ({**OUTSIDE, **NONE}, "spec.clusterIPs[0]", INVALID, "Invalid value: \"None\": may not be set to 'None' for NodePort services"),
        ({**BALANCER, **NONE}, "spec.clusterIPs[0]", INVALID, "Invalid value: \"None\": may not be set to 'None' for LoadBalancer services"),
        ({**NAMED, "externalName": ""}, "spec.externalName", REQUIRED, "Required value"),
        ({**NAMED, "externalName": "a_b"}, "spec.externalName", INVALID, f'Invalid value: "a_b": {SUBDOMAIN}'),
        ({**NAMED, "clusterIPs": ["10.43.0.9"]}, "spec.clusterIPs", FORBIDDEN, "Forbidden: may not be set for ExternalName services"),
        ({**NAMED, "ipFamilies": ["IPv4"]}, "spec.ipFamilies", FORBIDDEN, "Forbidden: may not be set for ExternalName services"),
        ({**NAMED, "ipFamilyPolicy": "SingleStack"}, "spec.ipFamilyPolicy", FORBIDDEN, "Forbidden: may not be set for ExternalName services"),
        ({"ports": [port(name="a"), port(port=81)]}, "spec.ports[1].name", REQUIRED, "Required value"),
        ({"ports": [port(name="a"), port(port=81, name="a")]}, "spec.ports[1].name", DUPLICATE, 'Duplicate value: "a"'),
        ({"ports": [port(name="A")]}, "spec.ports[0].name", INVALID, f'Invalid value: "A": {LABEL}'),
        ({"ports": [port(name="a.b")]}, "spec.ports[0].name", INVALID, 'Invalid value: "a.b": must not contain dots'),
        ({"ports": [port(port=70000, targetPort=80)]}, "spec.ports[0].port", INVALID, f"Invalid value: 70000: {RANGE}"),
        ({"ports": [port(protocol="http")]}, "spec.ports[0].protocol", UNSUPPORTED,
         'Unsupported value: "http": supported values: "SCTP", "TCP", "UDP"'),
        ({"ports": [port(targetPort=70000)]}, "spec.ports[0].targetPort", INVALID, f"Invalid value: 70000: {RANGE}"),
        ({"ports": [port(targetPort="8")]}, "spec.ports[0].targetPort", INVALID, 'Invalid value: "8": must contain at least one letter (a-z)'),
        ({"ports": [port(targetPort="a--b")]}, "spec.ports[0].targetPort", INVALID,
         'Invalid value: "a--b": must not contain consecutive hyphens'),
        ({"ports": [port(targetPort="a" * 16)]}, "spec.ports[0].targetPort", INVALID,
         f'Invalid value: "{"a" * 16}": must be no more than 15 characters'),
        ({"ports": [port(nodePort=30000)]}, "spec.ports[0].nodePort", FORBIDDEN, "Forbidden: may not be used when `type` is 'ClusterIP'"),
        ({**OUTSIDE, "ports": [port(name="a", nodePort=30000), port(name="b", port=81, nodePort=30000)]}, "spec.ports[1].nodePort", DUPLICATE,
         "Duplicate value: 30000"),
        ({"ports": [port(name="a"), port(name="b")]}, "spec.ports[1]", DUPLICATE,
         'Duplicate value: {"Name":"","Protocol":"TCP","AppProtocol":null,"Port":80,"TargetPort":0,"NodePort":0}'),
        ({"sessionAffinity": "Cookie"}, "spec.sessionAffinity", UNSUPPORTED,
         'Unsupported value: "Cookie": supported values: "ClientIP", "None"'),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}},
         "spec.sessionAffinityConfig.clientIP.timeoutSeconds", INVALID, "Invalid value: 86401: must be greater than 0 and less than 86400"),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}},
         "spec.sessionAffinityConfig.clientIP.timeoutSeconds", INVALID, "Invalid value: 0: must be greater than 0 and less than 86400"),
        ({"clusterIP": "x", "clusterIPs": ["x"]}, "spec.clusterIPs[0]", INVALID, f'Invalid value: "x": {ADDRESS}'),
        ({"clusterIP": "10.43.00.9", "clusterIPs": ["10.43.00.9"]}, "spec.clusterIPs[0]", INVALID,
         'Invalid value: "10.43.00.9": must not have leading 0s'),
        ({"clusterIP": "10.43.0.8"}, "spec.clusterIPs", INVALID, 'Invalid value: ["10.43.0.9"]: first value must match `clusterIP`'),
        ({"clusterIP": None}, "spec.clusterIPs", INVALID, 'Invalid value: ["10.43.0.9"]: must be empty when `clusterIP` is not specified'),
        ({"clusterIPs": None}, "spec.clusterIPs", REQUIRED, "Required value"),
        ({"clusterIP": "None", "clusterIPs": ["None", "::1"]}, "spec.clusterIPs", INVALID,
         'Invalid value: ["None","::1"]: \'None\' must be the first and only value'),
        ({"clusterIPs": ["10.43.0.9", "10.43.0.8"]}, "spec.clusterIPs", INVALID,
         'Invalid value: ["10.43.0.9","10.43.0.8"]: may specify no more than one IP for each IP family'),
        ({"clusterIP": "::9", "clusterIPs": ["::9"]}, "spec.clusterIPs[0]", INVALID,
         'Invalid value: "::9": expected an IPv4 value as indicated by `ipFamilies[0]`'),
        ({"ipFamilies": ["IPv5"]}, "spec.ipFamilies[0]", UNSUPPORTED, 'Unsupported value: "IPv5": supported values: "IPv4", "IPv6"'),
        ({"ipFamilies": ["IPv4", "IPv4"]}, "spec.ipFamilies[1]", DUPLICATE, 'Duplicate value: "IPv4"'),
        ({"ipFamilyPolicy": "Both"}, "spec.ipFamilyPolicy", UNSUPPORTED,
         'Unsupported value: "Both": supported values: "PreferDualStack", "RequireDualStack", "SingleStack"'),
        ({"externalIPs": ["x"]}, "spec.externalIPs[0]", INVALID, f'Invalid value: "x": {ADDRESS}'),
        ({"externalIPs": ["0.0.0.0"]}, "spec.externalIPs[0]", INVALID, 'Invalid value: "0.0.0.0": may not be unspecified (0.0.0.0)'),
        ({"externalIPs": ["127.0.0.1"]}, "spec.externalIPs[0]", INVALID,
         'Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)'),
        ({"externalIPs": ["fe80::1"]}, "spec.externalIPs[0]", INVALID,
         'Invalid value: "fe80::1": may not be in the link-local range (169.254.0.0/16, fe80::/10)'),
        ({"type": "Magic"}, "spec.type", UNSUPPORTED,
         'Unsupported value: "Magic": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"'),
        ({"loadBalancerSourceRanges": ["10.0.0.0/8"]}, "spec.LoadBalancerSourceRanges", FORBIDDEN, ONLY_BALANCER),
        ({**BALANCER, "loadBalancerSourceRanges": ["10.0.0.1/8"]}, "spec.LoadBalancerSourceRanges[0]", INVALID,
         'Invalid value: "10.0.0.1/8": must not have bits set beyond the prefix length'),
        ({**BALANCER, "loadBalancerSourceRanges": ["x"]}, "spec.LoadBalancerSourceRanges[0]", INVALID,
         'Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)'),
        ({"allocateLoadBalancerNodePorts": True}, "spec.allocateLoadBalancerNodePorts", FORBIDDEN, ONLY_BALANCER),
        ({"loadBalancerClass": "x"}, "spec.loadBalancerClass", FORBIDDEN, ONLY_BALANCER),
        ({**BALANCER, "loadBalancerClass": "/x"}, "spec.loadBalancerClass", INVALID, 'Invalid value: "/x": prefix part must be non-empty'),
        ({"externalTrafficPolicy": "Local"}, "spec.externalTrafficPolicy", INVALID,
         'Invalid value: "Local": may only be set for externally-accessible services'),
        ({**OUTSIDE, "externalTrafficPolicy": "Near"}, "spec.externalTrafficPolicy", UNSUPPORTED,
         'Unsupported value: "Near": supported values: "Cluster", "Local"'),
        ({"healthCheckNodePort": 30001}, "spec.healthCheckNodePort", INVALID,
         "Invalid value: 30001: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"),
        ({**BALANCER, "externalTrafficPolicy": "Local"}, "spec.healthCheckNodePort", REQUIRED, "Required value"),
        ({"internalTrafficPolicy": "Near"}, "spec.internalTrafficPolicy", UNSUPPORTED,
         'Unsupported value: "Near": supported values: "Cluster", "Local"'),
        ({"trafficDistribution": "Near"}, "spec.trafficDistribution", UNSUPPORTED,
         'Unsupported value: "Near": supported values: "PreferClose", "PreferSameNode", "PreferSameZone"'),
    ],
)  # fmt: skip
def test_refused(spec: dict[str, Any], field: str, reason: str, message: str) -> None:
    assert (field, reason, message) in problems(service(**spec))


def test_a_problem_is_told_once() -> None:
    assert len(problems(service(ports=[]))) == 1
    assert len(problems(service(clusterIP="x", clusterIPs=["x"]))) == 1


def test_selector() -> None:
    found = problems(service(selector={"a b": "c d"}))
    assert [one[0] for one in found] == ["spec.selector", "spec.selector"]


def test_annotations() -> None:
    bad = service()
    bad["metadata"]["annotations"] = {"service.kubernetes.io/topology-mode": "Auto", "service.kubernetes.io/topology-aware-hints": "off"}
    why = "must match annotations[service.kubernetes.io/topology-aware-hints] when both are specified"
    assert problems(bad) == [("metadata.annotations[service.kubernetes.io/topology-mode]", INVALID, f'Invalid value: "Auto": {why}')]
    bad["metadata"]["annotations"] = {"service.beta.kubernetes.io/load-balancer-source-ranges": "10.0.0.0/8, x"}
    at = "metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]"
    assert [one[:2] for one in problems(bad)] == [(at, FORBIDDEN), (at, INVALID)]


ONCE = "may not change once set"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {}, []),
        ({}, {"ports": [{"port": 81}]}, []),
        ({}, {"clusterIP": "10.43.0.8", "clusterIPs": ["10.43.0.8"]},
         [("spec.clusterIPs[0]", INVALID, f'Invalid value: ["10.43.0.8"]: {ONCE}')]),
        ({}, NONE, [("spec.clusterIPs[0]", INVALID, f'Invalid value: ["None"]: {ONCE}')]),
        ({}, NAMED, []),
        (NAMED, {}, []),
        ({}, {"clusterIP": None, "clusterIPs": None},
         [("spec.clusterIPs[0]", INVALID, 'Invalid value: null: primary clusterIP can not be unset')]),
        ({}, {"clusterIPs": ["10.43.0.9", "::9"], "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}, []),
        ({"clusterIPs": ["10.43.0.9", "::9"], "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"},
         {"ipFamilyPolicy": "PreferDualStack"},
         [("spec.ipFamilyPolicy", INVALID,
           'Invalid value: "PreferDualStack": must be set to \'SingleStack\' when releasing the secondary clusterIP'),
          ("spec.ipFamilyPolicy", INVALID,
           'Invalid value: "PreferDualStack": must be set to \'SingleStack\' when releasing the secondary ipFamily')]),
        ({**BALANCER, "loadBalancerClass": "a/b"}, {**BALANCER, "loadBalancerClass": "a/c"},
         [("spec.loadBalancerClass", INVALID, f'Invalid value: "a/c": {ONCE}')]),
        ({**BALANCER, "externalTrafficPolicy": "Local", "healthCheckNodePort": 30001},
         {**BALANCER, "externalTrafficPolicy": "Local", "healthCheckNodePort": 30002},
         [("spec.healthCheckNodePort", FORBIDDEN, "Forbidden: field is immutable")]),
        ({"externalIPs": ["010.0.0.1"]}, {"externalIPs": ["010.0.0.1"]}, []),
    ],
)  # fmt: skip
def test_update(before: dict[str, Any], after: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    assert problems(service(**after), service(**before)) == expected


@pytest.mark.parametrize(
    ("kind", "entry", "expected"),
    [
        ("LoadBalancer", {"ip": "192.0.2.1", "ipMode": "VIP"}, []),
        ("LoadBalancer", {"hostname": "example.com"}, []),
        ("ClusterIP", {"hostname": "example.com"}, [("status.loadBalancer.ingress", FORBIDDEN)]),
        ("LoadBalancer", {"ip": "x", "ipMode": "VIP"}, [("status.loadBalancer.ingress[0].ip", INVALID)]),
        ("LoadBalancer", {"ip": "192.0.2.1"}, [("status.loadBalancer.ingress[0].ipMode", REQUIRED)]),
        ("LoadBalancer", {"ip": "192.0.2.1", "ipMode": "Other"}, [("status.loadBalancer.ingress[0].ipMode", UNSUPPORTED)]),
        ("LoadBalancer", {"hostname": "a", "ipMode": "VIP"}, [("status.loadBalancer.ingress[0].ipMode", FORBIDDEN)]),
        ("LoadBalancer", {"hostname": "192.0.2.1"}, [("status.loadBalancer.ingress[0].hostname", INVALID)]),
    ],
)
def test_status(kind: str, entry: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    made = service(type=kind)
    made["status"] = {"loadBalancer": {"ingress": [entry]}}
    assert [(one.field, one.reason) for one in SERVICE.validate_status(made, service(type=kind))] == expected


def test_name() -> None:
    assert SERVICE.validate_name is not None
    assert not SERVICE.validate_name("9-lives")
    assert SERVICE.validate_name("a.b") == ["must not contain dots"]


@pytest.mark.parametrize(
    ("before", "after", "gone"),
    [
        (
            {"type": "NodePort", "externalTrafficPolicy": "Local"},
            {"type": "ClusterIP", "externalTrafficPolicy": "Local"},
            "externalTrafficPolicy",
        ),
        ({**BALANCER, "loadBalancerClass": "a/b"}, {"type": "ClusterIP", "loadBalancerClass": "a/b"}, "loadBalancerClass"),
        ({**BALANCER}, {"type": "NodePort", "allocateLoadBalancerNodePorts": True}, "allocateLoadBalancerNodePorts"),
    ],
)
def test_a_changed_type_takes_along_what_only_it_needed(before: dict[str, Any], after: dict[str, Any], gone: str) -> None:
    old, new = service(**before), service(**after)
    SERVICE.prepare(new, old)
    assert gone not in new["spec"]
    changed = service(**{**after, gone: "other"})
    SERVICE.prepare(changed, old)
    assert changed["spec"][gone] == "other"
