"""What pods may not be: field, reason and message of each refusal, one table per part of the pod."""

import copy
from typing import Any

import pytest

from edgekube.api import validate
from edgekube.api.kinds.pod import POD
from edgekube.api.types import Obj

_LABEL = validate.label("Not_A_Label")[0]
_NEGATIVE = "must be greater than or equal to 0"
_MODE = "must be a number between 0 and 0777 (octal), both inclusive"
_MANY = "Forbidden: may not specify more than 1 volume type"
_HANDLER = {"tcpSocket": {"port": 80}}


def made(container: Obj | None = None, *, metadata: Obj | None = None, **spec: Any) -> Obj:
    """A pod that is fine, but for what is given: fields of its container, of its spec."""
    main = {"name": "web", "image": "nginx", **(container or {})}
    pod = {"metadata": {"name": "web", "namespace": "default", **(metadata or {})}, "spec": {"containers": [main], **spec}}
    return copy.deepcopy(pod)


def judged(pod: Obj, old: Obj | None = None) -> list[tuple[str, str, str]]:
    POD.default(pod)
    return [(one.field, one.reason.removeprefix("FieldValue"), one.message) for one in POD.validate(pod, old)]


def mounts(*listed: Obj, **volume: Any) -> Obj:
    return {"container": {"volumeMounts": list(listed)}, "volumes": [{"name": "data", **(volume or {"emptyDir": {}})}]}


def test_a_plain_pod_is_fine() -> None:
    assert judged(made()) == []


CONTAINERS: list[tuple[Obj, tuple[str, str, str]]] = [
    ({"name": ""}, ("name", "Required", "Required value")),
    ({"name": "Not_A_Label"}, ("name", "Invalid", f'Invalid value: "Not_A_Label": {_LABEL}')),
    ({"image": ""}, ("image", "Required", "Required value")),
    ({"image": " nginx"}, ("image", "Invalid", 'Invalid value: " nginx": must not have leading or trailing whitespace')),
    (
        {"imagePullPolicy": "Often"},
        ("imagePullPolicy", "NotSupported", 'Unsupported value: "Often": supported values: "Always", "IfNotPresent", "Never"'),
    ),
    (
        {"terminationMessagePolicy": "Log"},
        ("terminationMessagePolicy", "NotSupported", 'Unsupported value: "Log": supported values: "File", "FallbackToLogsOnError"'),
    ),
    ({"ports": [{}]}, ("ports[0].containerPort", "Required", "Required value")),
    (
        {"ports": [{"containerPort": 70000}]},
        ("ports[0].containerPort", "Invalid", "Invalid value: 70000: must be between 1 and 65535, inclusive"),
    ),
    (
        {"ports": [{"containerPort": 80, "hostPort": -1}]},
        ("ports[0].hostPort", "Invalid", "Invalid value: -1: must be between 1 and 65535, inclusive"),
    ),
    (
        {"ports": [{"containerPort": 80, "protocol": "ICMP"}]},
        ("ports[0].protocol", "NotSupported", 'Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"'),
    ),
    (
        {"ports": [{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}]},
        ("ports[1].name", "Duplicate", 'Duplicate value: "a"'),
    ),
    (
        {"ports": [{"containerPort": 80, "name": "longer-than-fifteen"}]},
        ("ports[0].name", "Invalid", 'Invalid value: "longer-than-fifteen": must be no more than 15 characters'),
    ),
    (
        {"ports": [{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 80}]},
        ("ports[1].hostPort", "Duplicate", 'Duplicate value: "TCP//80"'),
    ),
    ({"env": [{"value": "1"}]}, ("env[0].name", "Required", "Required value")),
    (
        {"env": [{"name": "A", "valueFrom": {}}]},
        (
            "env[0].valueFrom",
            "Invalid",
            'Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`',
        ),
    ),
    (
        {"env": [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
        ("env[0].valueFrom", "Invalid", 'Invalid value: "": may not be specified when `value` is not empty'),
    ),
    (
        {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]},
        (
            "env[0].valueFrom.fieldRef.fieldPath",
            "NotSupported",
            'Unsupported value: "status.phase": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", '
            '"spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"',
        ),
    ),
    (
        {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": ""}}}]},
        ("env[0].valueFrom.secretKeyRef.key", "Required", "Required value"),
    ),
    (
        {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.disk"}}}]},
        (
            "env[0].valueFrom.resourceFieldRef.resource",
            "NotSupported",
            'Unsupported value: "limits.disk": supported values: "limits.cpu", "limits.ephemeral-storage", "limits.memory", '
            '"requests.cpu", "requests.ephemeral-storage", "requests.memory"',
        ),
    ),
    ({"envFrom": [{}]}, ("envFrom", "Invalid", 'Invalid value: "": must specify one of: `configMapRef` or `secretRef`')),
    ({"envFrom": [{"configMapRef": {}}]}, ("envFrom[0].configMapRef.name", "Required", "Required value")),
    ({"livenessProbe": {}}, ("livenessProbe", "Required", "Required value: must specify a handler type")),
    (
        {"readinessProbe": {**_HANDLER, "exec": {"command": ["true"]}}},
        ("readinessProbe.tcpSocket", "Forbidden", "Forbidden: may not specify more than 1 handler type"),
    ),
    ({"livenessProbe": {**_HANDLER, "successThreshold": 2}}, ("livenessProbe.successThreshold", "Invalid", "Invalid value: 2: must be 1")),
    ({"startupProbe": {**_HANDLER, "successThreshold": 2}}, ("startupProbe.successThreshold", "Invalid", "Invalid value: 2: must be 1")),
    (
        {"readinessProbe": {**_HANDLER, "periodSeconds": -1}},
        ("readinessProbe.periodSeconds", "Invalid", f"Invalid value: -1: {_NEGATIVE}"),
    ),
    (
        {"readinessProbe": {"grpc": {"port": 0}}},
        ("readinessProbe.grpc.port", "Invalid", "Invalid value: 0: must be between 1 and 65535, inclusive"),
    ),
    (
        {"livenessProbe": {**_HANDLER, "terminationGracePeriodSeconds": 0}},
        ("livenessProbe.terminationGracePeriodSeconds", "Invalid", "Invalid value: 0: must be greater than 0"),
    ),
    (
        {"readinessProbe": {**_HANDLER, "terminationGracePeriodSeconds": 5}},
        ("readinessProbe.terminationGracePeriodSeconds", "Invalid", "Invalid value: 5: must not be set for readinessProbes"),
    ),
    (
        {"livenessProbe": {"httpGet": {"port": 80, "scheme": "FTP"}}},
        ("livenessProbe.httpGet.scheme", "NotSupported", 'Unsupported value: "FTP": supported values: "HTTP", "HTTPS"'),
    ),
    ({"lifecycle": {"preStop": {}}}, ("lifecycle.preStop", "Required", "Required value: must specify a handler type")),
    ({"lifecycle": {"postStart": {"exec": {}}}}, ("lifecycle.postStart.exec.command", "Required", "Required value")),
    (
        {"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}},
        (
            "lifecycle.preStop.sleep",
            "Invalid",
            "Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
        ),
    ),
    (
        {"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "500m"}}},
        ("resources.requests", "Invalid", 'Invalid value: "1": must be less than or equal to cpu limit of 500m'),
    ),
    (
        {"resources": {"requests": {"cpu": "-1"}}},
        ("resources.requests[cpu]", "Invalid", f'Invalid value: "-1": {_NEGATIVE}'),
    ),
    (
        {"resources": {"requests": {"example.com/gpu": "1"}}},
        ("resources.limits", "Required", "Required value: Limit must be set for non overcommitable resources"),
    ),
    (
        {"resources": {"limits": {"hugepages-2Mi": "4Mi"}}},
        ("resources", "Forbidden", "Forbidden: HugePages require cpu or memory"),
    ),
    (
        {"securityContext": {"runAsUser": -1}},
        ("securityContext.runAsUser", "Invalid", "Invalid value: -1: must be between 0 and 2147483647, inclusive"),
    ),
    (
        {"securityContext": {"seccompProfile": {"type": "Localhost"}}},
        (
            "securityContext.seccompProfile.localhostProfile",
            "Required",
            "Required value: must be set when seccomp type is Localhost",
        ),
    ),
    (
        {"securityContext": {"procMount": "Unmasked"}},
        ("securityContext.procMount", "Invalid", 'Invalid value: "Unmasked": `hostUsers` must be false to use `Unmasked`'),
    ),
    (
        {"restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [3]}}]},
        ("restartPolicy", "Required", "Required value: must specify restartPolicy when restart rules are used"),
    ),
    (
        {"restartPolicy": "Never", "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "Is", "values": [3]}}]},
        ("restartPolicyRules[0].exitCodes.operator", "NotSupported", 'Unsupported value: "Is": supported values: "In", "NotIn"'),
    ),
    (
        {"resizePolicy": [{"resourceName": "disk", "restartPolicy": "NotRequired"}]},
        ("resizePolicy", "NotSupported", 'Unsupported value: "disk": supported values: "cpu", "memory"'),
    ),
]


@pytest.mark.parametrize(("container", "expected"), CONTAINERS)
def test_containers(container: Obj, expected: tuple[str, str, str]) -> None:
    field, reason, message = expected
    assert judged(made(container)) == [(f"spec.containers[0].{field}", reason, message)]


def test_a_privileged_container_can_always_gain_privileges() -> None:
    (found,) = judged(made({"securityContext": {"privileged": True, "allowPrivilegeEscalation": False}}))
    assert found[:2] == ("spec.containers[0].securityContext", "Invalid")
    assert found[2].endswith(": cannot set `allowPrivilegeEscalation` to false and `privileged` to true")


VOLUMES: list[tuple[Obj, tuple[str, str, str]]] = [
    ({"emptyDir": {}, "hostPath": {"path": "/a"}}, ("hostPath", "Forbidden", _MANY)),
    (
        {"emptyDir": {"sizeLimit": "-1"}},
        ("emptyDir.sizeLimit", "Forbidden", "Forbidden: SizeLimit field must be a valid resource quantity"),
    ),
    ({"hostPath": {}}, ("hostPath.path", "Required", "Required value")),
    ({"hostPath": {"path": "/a/../b"}}, ("hostPath.path", "Invalid", "Invalid value: \"/a/../b\": must not contain '..'")),
    ({"secret": {}}, ("secret.secretName", "Required", "Required value")),
    ({"secret": {"secretName": "s", "defaultMode": 0o1000}}, ("secret.defaultMode", "Invalid", f"Invalid value: 512: {_MODE}")),
    ({"configMap": {"name": "c", "items": [{"path": "a"}]}}, ("configMap.items[0].key", "Required", "Required value")),
    (
        {"configMap": {"name": "c", "items": [{"key": "a", "path": "../a"}]}},
        ("configMap.items[0].path", "Invalid", "Invalid value: \"../a\": must not contain '..'"),
    ),
    (
        {"configMap": {"name": "c", "items": [{"key": "a", "path": "/a"}]}},
        ("configMap.items[0].path", "Invalid", 'Invalid value: "/a": must be a relative path'),
    ),
    (
        {"configMap": {"name": "c", "items": [{"key": "a", "path": "..a"}]}},
        ("configMap.items[0].path", "Invalid", "Invalid value: \"..a\": must not start with '..'"),
    ),
    (
        {"downwardAPI": {"items": [{"path": "a"}]}},
        ("downwardAPI", "Required", "Required value: one of fieldRef and resourceFieldRef is required"),
    ),
    ({"persistentVolumeClaim": {}}, ("persistentVolumeClaim.claimName", "Required", "Required value")),
    ({"nfs": {"server": "a", "path": "b"}}, ("nfs.path", "Invalid", 'Invalid value: "b": must be an absolute path')),
    (
        {"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 60}}]}},
        (
            "projected.sources[0].serviceAccountToken.expirationSeconds",
            "Invalid",
            "Invalid value: 60: may not specify a duration less than 10 minutes",
        ),
    ),
    (
        {
            "projected": {
                "sources": [
                    {"configMap": {"name": "a", "items": [{"key": "k", "path": "same"}]}},
                    {"secret": {"name": "b", "items": [{"key": "k", "path": "same"}]}},
                ]
            }
        },
        ("projected", "Invalid", 'Invalid value: "b": conflicting duplicate paths'),
    ),
    (
        {"projected": {"sources": [{"configMap": {"name": "a"}, "secret": {"name": "b"}}]}},
        ("projected.sources[0]", "Forbidden", "Forbidden: may not specify more than 1 volume type per source"),
    ),
]


@pytest.mark.parametrize(("volume", "expected"), VOLUMES)
def test_volumes(volume: Obj, expected: tuple[str, str, str]) -> None:
    field, reason, message = expected
    assert judged(made(volumes=[{"name": "data", **volume}], serviceAccountName="default")) == [
        (f"spec.volumes[0].{field}", reason, message)
    ]


def test_volume_names() -> None:
    assert judged(made(volumes=[{"emptyDir": {}}])) == [("spec.volumes[0].name", "Required", "Required value")]
    twice = [{"name": "data", "emptyDir": {}}, {"name": "data", "emptyDir": {}}]
    assert judged(made(volumes=twice)) == [("spec.volumes[1].name", "Duplicate", 'Duplicate value: "data"')]
    odd = 'Unsupported value: "Pipe": supported values: '
    (found,) = judged(made(volumes=[{"name": "data", "hostPath": {"path": "/a", "type": "Pipe"}}]))
    assert found[0] == "spec.volumes[0].hostPath.type"
    assert found[2].startswith(odd)


MOUNTS: list[tuple[list[Obj], tuple[str, str, str]]] = [
    ([{"name": "other", "mountPath": "/a"}], ("[0].name", "NotFound", 'Not found: "other"')),
    ([{"name": "data"}], ("[0].mountPath", "Required", "Required value")),
    (
        [{"name": "data", "mountPath": "/a"}, {"name": "data", "mountPath": "/a"}],
        ("[1].mountPath", "Invalid", 'Invalid value: "/a": must be unique'),
    ),
    ([{"name": "data", "mountPath": "/a", "subPath": "/b"}], (".subPath", "Invalid", 'Invalid value: "/b": must be a relative path')),
    (
        [{"name": "data", "mountPath": "/a", "subPath": "b/../c"}],
        (".subPath", "Invalid", "Invalid value: \"b/../c\": must not contain '..'"),
    ),
    (
        [{"name": "data", "mountPath": "/a", "subPath": "b", "subPathExpr": "c"}],
        ("[0].subPathExpr", "Invalid", 'Invalid value: "c": subPathExpr and subPath are mutually exclusive'),
    ),
    (
        [{"name": "data", "mountPath": "/a", "mountPropagation": "Bidirectional"}],
        (".mountPropagation", "Forbidden", "Forbidden: Bidirectional mount propagation is available only to privileged containers"),
    ),
    (
        [{"name": "data", "mountPath": "/a", "recursiveReadOnly": "Enabled"}],
        (".recursiveReadOnly", "Forbidden", "Forbidden: may only be specified when readOnly is true"),
    ),
]


@pytest.mark.parametrize(("listed", "expected"), MOUNTS)
def test_mounts(listed: list[Obj], expected: tuple[str, str, str]) -> None:
    field, reason, message = expected
    assert judged(made(**mounts(*listed))) == [(f"spec.containers[0].volumeMounts{field}", reason, message)]
