"""What a pod gets that its author did not say."""

from typing import Any

import pytest

from edgekube.api.kinds.pod import POD
from edgekube.api.kinds.pod_defaults import default_template
from edgekube.api.types import Obj


def defaulted(container: Obj | None = None, **spec: Any) -> Obj:
    pod: Obj = {"metadata": {"name": "p", "namespace": "d"}, "spec": {"containers": [{"name": "c", "image": "i", **(container or {})}], **spec}}
    POD.default(pod)
    again: Obj = {"metadata": dict(pod["metadata"]), "spec": pod["spec"]}
    POD.default(again)
    assert again == pod  # once is enough
    return pod


def test_the_spec() -> None:
    spec = defaulted()["spec"]
    assert {name: value for name, value in spec.items() if name != "containers"} == {
        "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {}, "terminationGracePeriodSeconds": 30,
        "schedulerName": "default-scheduler", "enableServiceLinks": True,
    }  # fmt: skip
    assert spec["containers"] == [
        {"name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePath": "/dev/termination-log",
         "terminationMessagePolicy": "File", "resources": {}}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("busybox:1.36", "IfNotPresent"),
        ("registry:5000/busybox", "Always"),
        ("registry:5000/busybox:1", "IfNotPresent"),
        ("busybox@sha256:0123", "IfNotPresent"),
        ("busybox:latest@sha256:0123", "Always"),
        ("busybox:1@sha256:0123", "IfNotPresent"),
    ],
)
def test_pull_policy(image: str, policy: str) -> None:
    assert defaulted({"image": image})["spec"]["containers"][0]["imagePullPolicy"] == policy
    volume = {"name": "v", "image": {"reference": image}}
    assert defaulted(volumes=[volume])["spec"]["volumes"][0]["image"]["pullPolicy"] == policy


def test_limits_become_requests_in_pods_only() -> None:
    resources = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}
    assert defaulted({"resources": resources})["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "500m", "memory": "1Gi"}
    template: Obj = {"spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1"}}}], "hostNetwork": True}}
    default_template(template)
    assert template["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "1"}}
    assert "enableServiceLinks" not in template["spec"]


def test_amounts_below_a_thousandth_are_rounded_up() -> None:
    assert defaulted({"resources": {"requests": {"cpu": "1500u"}}})["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "2m"}


@pytest.mark.parametrize(
    ("own", "container", "expected"),
    [
        # requests follow from the containers, else from the pod's limits
        ({"limits": {"cpu": "2", "memory": "1Gi"}}, {"requests": {"cpu": "500m"}},
         {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}),
        # limits follow where all containers have one
        ({"requests": {"cpu": "1"}}, {"requests": {"cpu": "500m"}, "limits": {"cpu": "2"}},
         {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}),
        ({"requests": {"cpu": "1"}}, {}, {"requests": {"cpu": "1"}}),
    ],
)  # fmt: skip
def test_resources_of_the_pod(own: Obj, container: Obj, expected: Obj) -> None:
    assert defaulted({"resources": container}, resources=own)["spec"]["resources"] == expected


def test_ports_of_the_node_network() -> None:
    ports = [{"containerPort": 80}, {"containerPort": 81, "hostPort": 81, "protocol": "UDP"}]
    assert defaulted({"ports": ports}, hostNetwork=True)["spec"]["containers"][0]["ports"] == [
        {"containerPort": 80, "hostPort": 80, "protocol": "TCP"},
        {"containerPort": 81, "hostPort": 81, "protocol": "UDP"},
    ]


def test_probes_and_hooks() -> None:
    probe = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    container = defaulted({
        "livenessProbe": {"httpGet": {"port": 80}},
        "readinessProbe": {"grpc": {"port": 80}, "periodSeconds": 5},
        "lifecycle": {"preStop": {"httpGet": {"port": 80}}},
    })["spec"]["containers"][0]  # fmt: skip
    assert container["livenessProbe"] == {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, **probe}
    assert container["readinessProbe"] == {"grpc": {"port": 80, "service": ""}, **probe, "periodSeconds": 5}
    assert container["lifecycle"]["preStop"]["httpGet"] == {"port": 80, "path": "/", "scheme": "HTTP"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"emptyDir": {}}),
        ({"secret": {"secretName": "s"}}, {"secret": {"secretName": "s", "defaultMode": 420}}),
        ({"configMap": {"name": "c", "defaultMode": 0}}, {"configMap": {"name": "c", "defaultMode": 0}}),
        ({"hostPath": {"path": "/x"}}, {"hostPath": {"path": "/x", "type": ""}}),
        ({"downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.name"}}]}},
         {"downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v1"}}], "defaultMode": 420}}),
        ({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
         {"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}], "defaultMode": 420}}),
    ],
)  # fmt: skip
def test_volumes(given: Obj, expected: Obj) -> None:
    assert defaulted(volumes=[{"name": "v", **given}])["spec"]["volumes"] == [{"name": "v", **expected}]


def test_both_names_of_the_service_account() -> None:
    assert defaulted(serviceAccountName="robot")["spec"]["serviceAccount"] == "robot"
    assert defaulted(serviceAccount="robot")["spec"]["serviceAccountName"] == "robot"


class TestPrepare:
    def test_a_new_pod_is_pending(self) -> None:
        pod = defaulted()
        pod["status"] = {"phase": "Running", "podIP": "10.0.0.1"}
        POD.prepare(pod, None)
        assert pod["status"] == {"phase": "Pending", "qosClass": "BestEffort"}

    def test_gates_are_told(self) -> None:
        pod = defaulted(schedulingGates=[{"name": "example.com/wait"}])
        POD.prepare(pod, None)
        assert pod["status"]["conditions"] == [
            {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
             "message": "Scheduling is blocked due to non-empty scheduling gates"}
        ]  # fmt: skip

    def test_keys_become_part_of_selectors(self) -> None:
        term = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "x"}}, "matchLabelKeys": ["hash", "no"], "mismatchLabelKeys": ["t"]}
        pod = defaulted(affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})
        pod["metadata"]["labels"] = {"app": "x", "hash": "1", "t": "2"}
        POD.prepare(pod, None)
        assert term["labelSelector"] == {
            "matchLabels": {"app": "x"},
            "matchExpressions": [
                {"key": "hash", "operator": "In", "values": ["1"]},
                {"key": "t", "operator": "NotIn", "values": ["2"]},
            ],
        }
        assert list(POD.validate(pod, None)) == []
