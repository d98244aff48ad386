"""A pod is put on a node once."""

import pytest

from edgekube.apiserver.subresources.binding import assign
from edgekube.errors import Conflict


def binding(**metadata: object) -> dict:
    return {"metadata": {"name": "web"} | metadata, "target": {"kind": "Node", "name": "pi"}}


def pod(**spec: object) -> dict:
    return {"metadata": {"name": "web", "uid": "u", "resourceVersion": "5"}, "spec": spec}


def test_assignment() -> None:
    done = assign(pod(), binding(annotations={"a": "b"}), labels={"topology.kubernetes.io/zone": "z"}, now="2026-01-01T00:00:00Z")
    assert done["spec"]["nodeName"] == "pi"
    assert done["metadata"]["annotations"] == {"a": "b"}
    assert done["metadata"]["labels"] == {"topology.kubernetes.io/zone": "z"}
    (condition,) = done["status"]["conditions"]
    assert (condition["type"], condition["status"], condition["lastTransitionTime"]) == ("PodScheduled", "True", "2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("there", "wanted", "why"),
    [
        (pod(nodeName="other"), binding(), 'pod web is already assigned to node "other"'),
        (pod(schedulingGates=[{"name": "g"}]), binding(), "pod web has non-empty .spec.schedulingGates"),
        (
            pod() | {"metadata": {"name": "web", "deletionTimestamp": "x"}},
            binding(),
            "pod web is being deleted, cannot be assigned to a host",
        ),
        (pod(), binding(uid="v"), "Precondition failed: UID in precondition: v, UID in object meta: u"),
    ],
)
def test_conflicts(there: dict, wanted: dict, why: str) -> None:
    with pytest.raises(Conflict) as caught:
        assign(there, wanted, labels={}, now="")
    assert caught.value.message == f'Operation cannot be fulfilled on pods/binding "web": {why}'
