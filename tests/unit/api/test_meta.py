"""Metadata: Items, owners, conditions."""

import orjson

from edgekube.api import catalog, meta
from edgekube.api.types import Key

POD = {
    "metadata": {
        "name": "a",
        "namespace": "n",
        "uid": "u",
        "labels": {"app": "web"},
        "deletionTimestamp": "2026-01-01T00:00:00Z",
        "ownerReferences": [{"uid": "o1"}, {"uid": "o2", "controller": True}],
    }
}


def test_items():
    raw = meta.encode(POD)
    assert orjson.loads(raw) == POD
    item = meta.item_of(catalog.NAMESPACE, raw, 7)
    assert (item.key, item.uid, item.revision, item.labels) == (Key("n", "a"), "u", 7, {"app": "web"})
    assert (item.owners, item.controller, item.deleting) == (("o1", "o2"), "o2", True)
    assert item.fields["metadata.name"] == "a"
    assert item.fields["metadata.namespace"] == "n"
    assert item.decode() == POD


def test_an_object_without_metadata():
    item = meta.item_of(catalog.NAMESPACE, b"{}", 1)
    assert (item.key, item.uid, item.controller, item.deleting) == (Key("", ""), "", "", False)
    assert meta.labels({}) == {}
    assert meta.annotations({}) == {}
    assert meta.key_of({}) == Key("", "")
    assert not meta.is_deleting({})


def test_owners():
    assert meta.controller_of(POD) == {"uid": "o2", "controller": True}
    assert meta.controller_of({}) is None
    owner = {"metadata": {"name": "d", "uid": "x"}}
    assert meta.owner_reference(owner, catalog.DEPLOYMENT) == {
        "apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "x", "controller": True, "blockOwnerDeletion": True
    }  # fmt: skip
    assert "controller" not in meta.owner_reference(owner, catalog.DEPLOYMENT, controller=False)


def test_conditions():
    obj: dict = {}
    wanted = {"type": "Ready", "status": "True", "reason": "Up", "message": ""}
    assert meta.set_condition(obj, **wanted, now="t1")
    assert not meta.set_condition(obj, **wanted, now="t2")
    assert meta.find_condition(obj, "Ready") == wanted | {"lastTransitionTime": "t1"}
    assert meta.set_condition(obj, **wanted | {"message": "m"}, now="t3")
    assert meta.find_condition(obj, "Ready")["lastTransitionTime"] == "t1"
    assert meta.set_condition(obj, **wanted | {"status": "False"}, now="t4")
    assert meta.find_condition(obj, "Ready")["lastTransitionTime"] == "t4"
    assert meta.find_condition(obj, "Other") is None
