"""What pods request, their class, and the small facts others rely on."""

from typing import Any

import pytest

from edgekube.api import pods
from edgekube.api.types import Obj


def box(requests: Obj | None = None, limits: Obj | None = None, **more: Any) -> Obj:
    return {"name": "c", "resources": {"requests": requests or {}, "limits": limits or {}}, **more}


def pod(*main: Obj, init: tuple[Obj, ...] = (), **spec: Any) -> Obj:
    return {"metadata": {}, "spec": {"containers": list(main), "initContainers": list(init), **spec}}


SIDE = {"restartPolicy": "Always"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (pod(box()), {}),
        (pod(box({"cpu": "1", "memory": "1Gi"}), box({"cpu": "500m"})), {"cpu": 1500, "memory": 1 << 30}),
        # the largest init step, not the sum of them
        (pod(box({"cpu": "1"}), init=(box({"cpu": "3"}), box({"cpu": "2"}))), {"cpu": 3000}),
        # a sidecar runs beside the main containers and beside the steps after it, not beside those before
        (pod(box({"cpu": "1"}), init=(box({"cpu": "2"}, **SIDE),)), {"cpu": 3000}),
        (pod(box({"cpu": "1"}), init=(box({"cpu": "5"}), box({"cpu": "2"}, **SIDE))), {"cpu": 5000}),
        (pod(box({"cpu": "1"}), init=(box({"cpu": "2"}, **SIDE), box({"cpu": "5"}))), {"cpu": 7000}),
        # overhead comes on top, the pod's own word before the sum of its containers
        (pod(box({"cpu": "1"}), overhead={"cpu": "250m", "memory": "1Mi"}), {"cpu": 1250, "memory": 1 << 20}),
        (pod(box({"cpu": "1", "memory": "1Mi"}), resources={"requests": {"cpu": "4"}}), {"cpu": 4000, "memory": 1 << 20}),
        (pod(box({"example.com/gpu": "2"})), {"example.com/gpu": 2}),
    ],
)
def test_requests(given: Obj, expected: dict[str, int]) -> None:
    assert pods.requests(given) == expected


def test_overhead_raises_only_limits_that_are_there() -> None:
    assert pods.limits(pod(box(limits={"cpu": "1"}), overhead={"cpu": "1", "memory": "1Mi"})) == {"cpu": 2000}


FULL = {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (pod(box()), "BestEffort"),
        (pod(box({"cpu": "0"})), "BestEffort"),
        (pod(box({"example.com/gpu": "1"}, {"example.com/gpu": "1"})), "BestEffort"),
        (pod(box({"cpu": "1"})), "Burstable"),
        (pod(box(FULL, FULL)), "Guaranteed"),
        (pod(box(FULL, {"cpu": "1000m", "memory": "1024Mi"})), "Guaranteed"),
        (pod(box(FULL, {"cpu": "2", "memory": "1Gi"})), "Burstable"),
        (pod(box(FULL, FULL), box()), "Burstable"),
        (pod(box(FULL, FULL), init=(box(),)), "Burstable"),
        (pod(box(FULL, FULL), init=(box(FULL, FULL),)), "Guaranteed"),
        (pod(box(), resources={"requests": FULL, "limits": FULL}), "Guaranteed"),
        (pod(box(FULL, FULL), resources={"requests": FULL}), "Burstable"),
    ],
)
def test_class(given: Obj, expected: str) -> None:
    assert pods.qos_class(given) == expected


def test_readiness_and_end() -> None:
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert pods.is_ready(ready)
    assert not pods.is_ready({"status": {"conditions": [{"type": "Ready", "status": "False"}]}})
    assert not pods.is_ready({})
    assert [pods.is_terminal({"status": {"phase": phase}}) for phase in ("Pending", "Running", "Succeeded", "Failed")] == [
        False, False, True, True,
    ]  # fmt: skip


def test_ports_of_the_node() -> None:
    web = box(ports=[{"containerPort": 80, "hostPort": 8080, "protocol": "TCP"}, {"containerPort": 81}])
    side = box(ports=[{"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "10.0.0.1"}], restartPolicy="Always")
    step = box(ports=[{"containerPort": 1, "hostPort": 1}])
    assert list(pods.host_ports(pod(web, init=(side, step)))) == [("0.0.0.0", "TCP", 8080), ("10.0.0.1", "UDP", 53)]
