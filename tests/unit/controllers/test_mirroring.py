"""Hand-made Endpoints to slices, as a table."""

import pytest

from edgekube.controllers.mirroring import MANAGER, plan_mirror, should_mirror


def endpoints(*subsets, **metadata):
    return {"metadata": {"name": "db", "namespace": "default", "uid": "u1", "labels": {"app": "db"}, **metadata}, "subsets": list(subsets)}


def subset(*ips, port=5432, unready=()):
    found = {"ports": [{"name": "sql", "port": port, "protocol": "TCP"}], "addresses": [{"ip": ip} for ip in ips]}
    return found | ({"notReadyAddresses": [{"ip": ip} for ip in unready]} if unready else {})


def stored(obj, name):
    return obj | {"metadata": obj["metadata"] | {"name": name, "uid": name}}


def shown(slices):
    return [
        (obj["addressType"], obj["ports"][0]["port"], [(e["addresses"][0], e["conditions"]["ready"]) for e in obj["endpoints"]])
        for obj in slices
    ]


def test_one_slice_for_each_family_and_set_of_ports():
    plan = plan_mirror(endpoints(subset("192.0.2.1", "2001:db8::1", unready=["192.0.2.2"]), subset("192.0.2.9", port=1)), [])
    assert shown(plan.create) == [
        ("IPv4", 5432, [("192.0.2.1", True), ("192.0.2.2", False)]),
        ("IPv6", 5432, [("2001:db8::1", True)]),
        ("IPv4", 1, [("192.0.2.9", True)]),
    ]
    about = plan.create[0]["metadata"]
    assert about["labels"] == {"app": "db", "kubernetes.io/service-name": "db", "endpointslice.kubernetes.io/managed-by": MANAGER}
    assert about["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Endpoints", "name": "db", "uid": "u1", "controller": True, "blockOwnerDeletion": True}
    ]


def test_changes_go_into_the_slice_that_is_there():
    before = [stored(obj, f"db-{n}") for n, obj in enumerate(plan_mirror(endpoints(subset("192.0.2.1")), []).create)]
    assert plan_mirror(endpoints(subset("192.0.2.1")), before).nothing
    plan = plan_mirror(endpoints(subset("192.0.2.1", "192.0.2.2")), before)
    assert [obj["metadata"]["name"] for obj in plan.update] == ["db-0"]
    assert not plan.create
    assert not plan.delete
    other_port = plan_mirror(endpoints(subset("192.0.2.1", port=1)), before)
    assert shown(other_port.update) == [("IPv4", 1, [("192.0.2.1", True)])]
    assert not other_port.delete
    assert [obj["metadata"]["name"] for obj in plan_mirror(endpoints(), before).delete] == ["db-0"]
    assert plan_mirror(endpoints(subset("192.0.2.1"), labels={"app": "other"}), before).update


@pytest.mark.parametrize(
    ("metadata", "selector", "mirrored"),
    [
        ({}, None, True),
        ({}, {"app": "db"}, False),
        ({"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}, None, False),
        ({"labels": {"endpointslice.kubernetes.io/skip-mirror": "false"}}, None, True),
        ({"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}}, None, False),
    ],
)
def test_which_are_mirrored(metadata, selector, mirrored):
    assert should_mirror(endpoints(**metadata), {"spec": {"selector": selector}}) is mirrored
