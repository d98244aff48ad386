"""What a pod's spec may not say, beside its containers and volumes: field, reason and message of each refusal."""

from typing import Any

import pytest

from edgekube.api import validate
from edgekube.api.kinds.pod import POD
from edgekube.api.types import Obj
from tests.unit.api.test_pod_validation import judged, made

_LABEL = validate.label("A_b")[0]
_SUBDOMAIN = validate.subdomain("A_b")[0]
_VALUE = validate.label_value("a b")[0]
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_NODE = f"affinity.nodeAffinity.{_REQUIRED}.nodeSelectorTerms"
_SPREAD = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}


def node_terms(*terms: Obj) -> Obj:
    return {"affinity": {"nodeAffinity": {_REQUIRED: {"nodeSelectorTerms": list(terms)}}}}


def pod_term(**term: Any) -> Obj:
    return {"affinity": {"podAffinity": {_REQUIRED: [{"topologyKey": "zone", **term}]}}}


SPECS: list[tuple[Obj, tuple[str, str, str]]] = [
    ({"containers": []}, ("containers", "Required", "Required value")),
    (
        {"restartPolicy": "Maybe"},
        ("restartPolicy", "NotSupported", 'Unsupported value: "Maybe": supported values: "Always", "OnFailure", "Never"'),
    ),
    (
        {"dnsPolicy": "Mine"},
        (
            "dnsPolicy",
            "NotSupported",
            'Unsupported value: "Mine": supported values: "ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"',
        ),
    ),
    ({"dnsPolicy": "None"}, ("dnsConfig", "Required", "Required value: must provide `dnsConfig` when `dnsPolicy` is None")),
    (
        {"dnsPolicy": "None", "dnsConfig": {}},
        ("dnsConfig.nameservers", "Required", "Required value: must provide at least one DNS nameserver when `dnsPolicy` is None"),
    ),
    (
        {"dnsConfig": {"nameservers": ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]}},
        (
            "dnsConfig.nameservers",
            "Invalid",
            'Invalid value: ["10.0.0.1","10.0.0.2","10.0.0.3","10.0.0.4"]: must not have more than 3 nameservers',
        ),
    ),
    ({"dnsConfig": {"options": [{"value": "1"}]}}, ("dnsConfig.options[0]", "Required", "Required value: must not be empty")),
    ({"hostname": "A_b"}, ("hostname", "Invalid", f'Invalid value: "A_b": {_LABEL}')),
    ({"subdomain": "A_b"}, ("subdomain", "Invalid", f'Invalid value: "A_b": {_LABEL}')),
    ({"serviceAccountName": "A_b"}, ("serviceAccountName", "Invalid", f'Invalid value: "A_b": {_SUBDOMAIN}')),
    ({"nodeName": "A_b"}, ("nodeName", "Invalid", f'Invalid value: "A_b": {_SUBDOMAIN}')),
    ({"priorityClassName": "A_b"}, ("priorityClassName", "Invalid", f'Invalid value: "A_b": {_SUBDOMAIN}')),
    ({"runtimeClassName": "A_b"}, ("runtimeClassName", "Invalid", f'Invalid value: "A_b": {_SUBDOMAIN}')),
    (
        {"activeDeadlineSeconds": 0},
        ("activeDeadlineSeconds", "Invalid", "Invalid value: 0: must be between 1 and 2147483647, inclusive"),
    ),
    ({"nodeSelector": {"a": "a b"}}, ("nodeSelector", "Invalid", f'Invalid value: "a b": {_VALUE}')),
    (
        {"preemptionPolicy": "Always"},
        ("preemptionPolicy", "NotSupported", 'Unsupported value: "Always": supported values: "PreemptLowerPriority", "Never"'),
    ),
    ({"schedulingGates": [{"name": "a"}, {"name": "a"}]}, ("schedulingGates[1]", "Duplicate", 'Duplicate value: "a"')),
    (
        {"schedulingGates": [{"name": "a"}], "nodeName": "n"},
        ("nodeName", "Forbidden", "Forbidden: cannot be set until all schedulingGates have been cleared"),
    ),
    (
        {"ephemeralContainers": [{"name": "debug", "image": "busybox"}]},
        ("ephemeralContainers", "Forbidden", "Forbidden: cannot be set on create"),
    ),
    (
        {"hostNetwork": True, "containers": [{"name": "web", "image": "nginx", "ports": [{"containerPort": 80, "hostPort": 81}]}]},
        ("containers[0].ports[0].hostPort", "Invalid", "Invalid value: 81: must match `containerPort` when `hostNetwork` is true"),
    ),
    (
        {"hostPID": True, "shareProcessNamespace": True},
        (
            "securityContext.shareProcessNamespace",
            "Invalid",
            "Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
        ),
    ),
    ({"hostUsers": False, "hostNetwork": True}, ("hostNetwork", "Forbidden", "Forbidden: when `pod.Spec.HostUsers` is false")),
    (
        {"securityContext": {"fsGroup": -1}},
        ("securityContext.fsGroup", "Invalid", "Invalid value: -1: must be between 0 and 2147483647, inclusive"),
    ),
    (
        {"securityContext": {"supplementalGroups": [1, -1]}},
        ("securityContext.supplementalGroups[1]", "Invalid", "Invalid value: -1: must be between 0 and 2147483647, inclusive"),
    ),
    (
        {"securityContext": {"fsGroupChangePolicy": "Never"}},
        (
            "securityContext.fsGroupChangePolicy",
            "NotSupported",
            'Unsupported value: "Never": supported values: "Always", "OnRootMismatch"',
        ),
    ),
    ({"securityContext": {"sysctls": [{"value": "1"}]}}, ("securityContext.sysctls[0].name", "Required", "Required value")),
    (
        {"securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1"}]}, "hostNetwork": True},
        (
            "securityContext.sysctls[0].name",
            "Invalid",
            "Invalid value: \"net.core.somaxconn\": may not be specified when 'hostNetwork' is true",
        ),
    ),
    (
        {"securityContext": {"seccompProfile": {}}},
        ("securityContext.seccompProfile.type", "Required", "Required value: type is required when seccompProfile is set"),
    ),
    (
        {"overhead": {"cpu": "-1"}},
        ("overhead.limits[cpu]", "Invalid", 'Invalid value: "-1": must be greater than or equal to 0'),
    ),
    (
        {"tolerations": [{"operator": "Equal"}]},
        (
            "tolerations[0].operator",
            "Invalid",
            'Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys"',
        ),
    ),
    (
        {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
        ("tolerations[0].operator", "Invalid", "Invalid value: \"b\": value must be empty when `operator` is 'Exists'"),
    ),
    (
        {"tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 1}]},
        ("tolerations[0].effect", "Invalid", "Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set"),
    ),
    (
        {"tolerations": [{"key": "a", "operator": "Exists", "effect": "Never"}]},
        (
            "tolerations[0].effect",
            "NotSupported",
            'Unsupported value: "Never": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"',
        ),
    ),
    (node_terms(), (_NODE, "Required", "Required value: must have at least one node selector term")),
    (
        node_terms({"matchExpressions": [{"key": "a", "operator": "In"}]}),
        (f"{_NODE}[0].matchExpressions[0].values", "Required", "Required value: must be specified when `operator` is 'In' or 'NotIn'"),
    ),
    (
        node_terms({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
        (
            f"{_NODE}[0].matchExpressions[0].values",
            "Forbidden",
            "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
    ),
    (
        node_terms({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1", "2"]}]}),
        (
            f"{_NODE}[0].matchExpressions[0].values",
            "Required",
            "Required value: must be specified single value when `operator` is 'Lt' or 'Gt'",
        ),
    ),
    (
        node_terms({"matchFields": [{"key": "spec.x", "operator": "In", "values": ["1"]}]}),
        (f"{_NODE}[0].matchFields[0].key", "Invalid", 'Invalid value: "spec.x": not a valid field selector key'),
    ),
    (
        {"affinity": {"nodeAffinity": {_PREFERRED: [{"weight": 101, "preference": {}}]}}},
        (f"affinity.nodeAffinity.{_PREFERRED}[0].weight", "Invalid", "Invalid value: 101: must be in the range 1-100"),
    ),
    (
        {"affinity": {"podAntiAffinity": {_PREFERRED: [{"weight": 0, "podAffinityTerm": {"topologyKey": "zone"}}]}}},
        (f"affinity.podAntiAffinity.{_PREFERRED}[0].weight", "Invalid", "Invalid value: 0: must be in the range 1-100"),
    ),
    (
        pod_term(namespaces=["A_b"]),
        (f"affinity.podAffinity.{_REQUIRED}[0].namespace", "Invalid", f'Invalid value: "A_b": {_LABEL}'),
    ),
    (
        pod_term(matchLabelKeys=["a"]),
        (
            f"affinity.podAffinity.{_REQUIRED}[0].matchLabelKeys",
            "Forbidden",
            "Forbidden: must not be specified when labelSelector is not set",
        ),
    ),
    (
        pod_term(matchLabelKeys=["a"], mismatchLabelKeys=["a"], labelSelector={}),
        (
            f"affinity.podAffinity.{_REQUIRED}[0].matchLabelKeys[0]",
            "Invalid",
            'Invalid value: "a": exists in both matchLabelKeys and mismatchLabelKeys',
        ),
    ),
    (
        {"topologySpreadConstraints": [{**_SPREAD, "maxSkew": 0}]},
        ("topologySpreadConstraints[0].maxSkew", "Invalid", "Invalid value: 0: must be greater than zero"),
    ),
    (
        {"topologySpreadConstraints": [{**_SPREAD, "topologyKey": ""}]},
        ("topologySpreadConstraints[0].topologyKey", "Required", "Required value: can not be empty"),
    ),
    (
        {"topologySpreadConstraints": [_SPREAD, _SPREAD]},
        (
            "topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}",
            "Duplicate",
            'Duplicate value: "{zone, DoNotSchedule}"',
        ),
    ),
    (
        {"topologySpreadConstraints": [{**_SPREAD, "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 1}]},
        (
            "topologySpreadConstraints[0].minDomains",
            "Invalid",
            "Invalid value: 1: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
        ),
    ),
    (
        {"topologySpreadConstraints": [{**_SPREAD, "nodeTaintsPolicy": "Maybe"}]},
        (
            "topologySpreadConstraints[0].nodeTaintsPolicy",
            "NotSupported",
            'Unsupported value: "Maybe": supported values: "Honor", "Ignore"',
        ),
    ),
]


@pytest.mark.parametrize(("spec", "expected"), SPECS)
def test_spec(spec: Obj, expected: tuple[str, str, str]) -> None:
    field, reason, message = expected
    assert judged(made(**spec)) == [(f"spec.{field}", reason, message)]


_INIT: list[tuple[Obj, list[tuple[str, str, str]]]] = [
    ({"name": "init", "image": "busybox"}, []),
    ({"name": "web", "image": "busybox"}, [("name", "Duplicate", 'Duplicate value: "web"')]),
    (
        {"name": "init", "image": "busybox", "readinessProbe": {"tcpSocket": {"port": 80}}},
        [("readinessProbe", "Forbidden", "Forbidden: may not be set for init containers without restartPolicy=Always")],
    ),
    (
        {"name": "init", "image": "busybox", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}},
        [("lifecycle", "Forbidden", "Forbidden: may not be set for init containers without restartPolicy=Always")],
    ),
    ({"name": "side", "image": "busybox", "restartPolicy": "Always", "readinessProbe": {"tcpSocket": {"port": 80}}}, []),
    (
        {"name": "side", "image": "busybox", "restartPolicy": "Always", "livenessProbe": {"tcpSocket": {"port": 0}}},
        [("livenessProbe.tcpSocket.port", "Invalid", "Invalid value: 0: must be between 1 and 65535, inclusive")],
    ),
]


@pytest.mark.parametrize(("container", "expected"), _INIT)
def test_init_containers(container: Obj, expected: list[tuple[str, str, str]]) -> None:
    found = judged(made(initContainers=[container]))
    assert found == [(f"spec.initContainers[0].{field}", reason, message) for field, reason, message in expected]


def test_ephemeral_containers_are_plain() -> None:
    """The subresource judges the whole pod and keeps what concerns them; create refuses them whatever they are."""
    debug = {"name": "debug", "image": "busybox", "ports": [{"containerPort": 80}], "targetContainerName": "other"}
    found = judged(made(ephemeralContainers=[debug]))
    assert ("spec.ephemeralContainers[0].ports", "Forbidden", "Forbidden: cannot be set for an Ephemeral Container") in found
    assert ("spec.ephemeralContainers[0].targetContainerName", "NotFound", 'Not found: "other"') in found


def test_annotations() -> None:
    mirror = judged(made(metadata={"annotations": {"kubernetes.io/config.mirror": "x"}}))
    assert mirror == [
        (
            "metadata.annotations[kubernetes.io/config.mirror]",
            "Invalid",
            'Invalid value: "x": must set spec.nodeName if mirror pod annotation is set',
        )
    ]
    cost = "controller.kubernetes.io/pod-deletion-cost"
    (found,) = judged(made(metadata={"annotations": {cost: "1.5"}}))
    assert found == (f"metadata.annotations[{cost}]", "Invalid", 'Invalid value: "1.5": must be a 32bit integer')


def test_a_key_of_the_pod_is_not_named_in_the_selector_too() -> None:
    """Creation turns the keys into expressions; with the user's own there would be two."""
    for selector, expected in (({}, []), ({"matchLabels": {"a": "b"}}, ["spec.topologySpreadConstraints[0].matchLabelKeys[0]"])):
        constraint = {**_SPREAD, "matchLabelKeys": ["a"], "labelSelector": selector}
        pod = made(metadata={"labels": {"a": "b"}}, topologySpreadConstraints=[constraint])
        POD.default(pod)
        POD.prepare(pod, None)
        assert [one.field for one in POD.validate(pod, None)] == expected


def test_all_problems_at_once() -> None:
    pod = made({"image": "", "imagePullPolicy": "Often"}, restartPolicy="Maybe")
    assert [field for field, _, _ in judged(pod)] == [
        "spec.containers[0].image",
        "spec.containers[0].imagePullPolicy",
        "spec.restartPolicy",
    ]
