"""Same or not, and the hash."""

import pytest

from edgekube.controllers.template import bare, new_replica_set, template_hash

TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (TEMPLATE | {"metadata": {"labels": {"app": "web", "pod-template-hash": "x"}, "creationTimestamp": None}}, True),
        (TEMPLATE | {"metadata": {"labels": {"app": "web"}, "annotations": {}}}, True),
        (TEMPLATE | {"spec": {"containers": [{"name": "c", "image": "i", "env": []}]}}, True),
        (TEMPLATE | {"spec": {"containers": [{"name": "c", "image": "j"}]}}, False),
        (TEMPLATE | {"metadata": {"labels": {"app": "db"}}}, False),
        (TEMPLATE | {"spec": TEMPLATE["spec"] | {"volumes": [{"name": "v", "emptyDir": {}}]}}, False),
    ],
)
def test_same(other, same):
    assert (bare(other) == bare(TEMPLATE)) is same
    assert (template_hash(other, None) == template_hash(TEMPLATE, None)) is same


def test_hash_is_safe_stable_and_moves_with_collisions():
    hashes = {template_hash(TEMPLATE, collisions) for collisions in (None, 0, 1, 2)}
    assert len(hashes) == 4
    assert all(1 <= len(h) <= 10 and set(h) <= set("bcdfghjklmnpqrstvwxz2456789") for h in hashes)
    assert template_hash(TEMPLATE, None) == template_hash(dict(reversed(TEMPLATE.items())), None)


def test_the_new_set_selects_its_own_pods_only_and_shares_nothing():
    deployment = {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": TEMPLATE, "minReadySeconds": 5},
    }
    rs = new_replica_set(deployment, "abc")
    assert rs["metadata"]["name"] == "web-abc"
    labels = {"app": "web", "pod-template-hash": "abc"}
    assert rs["spec"]["selector"]["matchLabels"] == rs["metadata"]["labels"] == rs["spec"]["template"]["metadata"]["labels"] == labels
    assert rs["spec"]["minReadySeconds"] == 5
    assert TEMPLATE["metadata"]["labels"] == {"app": "web"}
