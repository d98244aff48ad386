"""Field management: the life of an object between appliers and updaters, conflicts, and what holds for any of them."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekube.api import catalog, fieldset
from edgekube.api.apply import LAST_APPLIED, apply_patch, track_update
from edgekube.api.schema import SCHEMA
from edgekube.errors import BadRequest, Conflict, Unclassified

KIND = catalog.DEPLOYMENT
T1, T2, T3 = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"


def deployment(*, replicas=None, image="i:1", labels=None, **container):
    spec = {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image} | container]}},
    }
    if replicas is not None:
        spec["replicas"] = replicas
    metadata = {"name": "web", "namespace": "default"} | ({"labels": labels} if labels else {})
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def apply(live, config, manager="me", now=T1, *, force=False, subresource=""):
    before = copy.deepcopy((live, config))
    made = apply_patch(KIND, live, config, manager=manager, force=force, now=now, subresource=subresource)
    assert (live, config) == before
    made = copy.deepcopy(made)
    SCHEMA.check(KIND.schema, made)  # as the server does with every patch result
    return made


def update(old, new, manager="kubectl-edit", now=T2, subresource=""):
    before = copy.deepcopy((old, new))
    made = track_update(KIND, old, new, manager=manager, now=now, subresource=subresource)
    assert (old, new) == before
    return made


def changed(obj, *path, to):
    obj = copy.deepcopy(obj)
    node = obj
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = to
    return obj


def entry(obj, manager):
    return next(found for found in obj["metadata"]["managedFields"] if found["manager"] == manager)


def owned(obj, manager):
    return {fieldset.path_text(path) for path in fieldset.members(entry(obj, manager)["fieldsV1"])}


def managers_of(obj):
    return [found["manager"] for found in obj["metadata"].get("managedFields", [])]


def test_applying_again_changes_nothing():
    once = apply(None, deployment(replicas=3))
    assert apply(once, deployment(replicas=3), now=T2) == once
    assert entry(once, "me") == entry(once, "me") | {"operation": "Apply", "apiVersion": "apps/v1", "time": T1, "fieldsType": "FieldsV1"}


def test_what_the_server_writes_is_nobodys():
    paths = owned(apply(None, deployment(replicas=3, labels={"a": "1"})), "me")
    assert ".metadata.labels.a" in paths
    assert not any(path.startswith((".metadata.name", ".kind", ".apiVersion")) for path in paths)


def test_another_managers_field_conflicts():
    live = update(one := apply(None, deployment(replicas=3)), changed(one, "spec", "replicas", to=5))
    with pytest.raises(Conflict) as refused:
        apply(live, deployment(replicas=4))
    assert refused.value.message == 'Apply failed with 1 conflict: conflict with "kubectl-edit" using apps/v1: .spec.replicas'
    assert refused.value.details == {
        "causes": [{"reason": "FieldManagerConflict", "message": 'conflict with "kubectl-edit" using apps/v1', "field": ".spec.replicas"}]
    }


def test_several_conflicts_are_listed_by_manager():
    live = apply(None, deployment(replicas=3, labels={"a": "1"}))
    with pytest.raises(Conflict) as refused:
        apply(live, deployment(replicas=4, image="i:2"), manager="you")
    assert refused.value.message == (
        'Apply failed with 2 conflicts: conflicts with "me":\n- .spec.replicas\n- .spec.template.spec.containers[name="c"].image'
    )


def test_force_takes_over():
    live = update(one := apply(None, deployment(replicas=3)), changed(one, "spec", "replicas", to=5))
    taken = apply(live, deployment(replicas=4), force=True, now=T3)
    assert taken["spec"]["replicas"] == 4
    assert managers_of(taken) == ["me"]
    assert entry(taken, "me")["time"] == T3


def test_equal_values_are_shared_without_conflict():
    live = apply(apply(None, deployment(replicas=3)), deployment(replicas=3), manager="you")
    assert ".spec.replicas" in owned(live, "me") & owned(live, "you")


def test_what_is_applied_no_more_goes_away_unless_shared():
    live = apply(None, deployment(replicas=3, labels={"a": "1"}, env=[{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]))
    live = apply(live, deployment(labels={"a": "1"}), manager="you")
    after = apply(live, deployment(env=[{"name": "Y", "value": "2"}]), now=T2)
    assert after["spec"].get("replicas") is None
    assert after["metadata"]["labels"] == {"a": "1"}
    assert after["metadata"]["name"] == "web"
    assert after["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "Y", "value": "2"}]


def test_a_container_of_another_applier_stays():
    other = deployment()
    other["spec"]["template"]["spec"]["containers"] = [{"name": "sidecar", "image": "s"}]
    live = apply(apply(None, deployment()), other, manager="you")
    assert [item["name"] for item in live["spec"]["template"]["spec"]["containers"]] == ["c", "sidecar"]
    mine = deployment(image="i:2")
    assert [item["name"] for item in apply(live, mine)["spec"]["template"]["spec"]["containers"]] == ["c", "sidecar"]


def test_updates_move_what_they_touch():
    live = update(None, deployment(replicas=3, labels={"a": "1"}), manager="kubectl-create", now=T1)
    after = update(live, changed(live, "spec", "replicas", to=5))
    assert owned(after, "kubectl-edit") == {".spec.replicas"}
    assert ".spec.replicas" not in owned(after, "kubectl-create")
    assert entry(after, "kubectl-create")["time"] == T1
    assert entry(after, "kubectl-edit")["time"] == T2


def test_an_update_that_changes_nothing_leaves_no_trace():
    live = update(None, deployment(replicas=3), manager="kubectl-create", now=T1)
    assert update(live, copy.deepcopy(live)) == live
    without = copy.deepcopy(live)
    del without["metadata"]["managedFields"]
    assert update(live, without) == live


def test_removed_fields_are_forgotten_by_all():
    live = update(None, deployment(replicas=3, labels={"a": "1", "b": "2"}), now=T1)
    fewer = changed(live, "metadata", "labels", to={"b": "2"})
    assert ".metadata.labels.a" not in owned(update(live, fewer, manager="x"), "kubectl-edit")


def test_a_subresource_has_an_entry_of_its_own():
    live = update(None, deployment(replicas=3), now=T1)
    after = update(live, {**live, "status": {"replicas": 3}}, manager="kubectl-edit", subresource="status")
    assert [found.get("subresource") for found in after["metadata"]["managedFields"]] == [None, "status"]
    again = update(after, changed(after, "spec", "replicas", to=4), manager="hpa", subresource="scale")
    with pytest.raises(Conflict, match='conflict with "hpa" with subresource "scale" using apps/v1: .spec.replicas'):
        apply(again, deployment(replicas=7))


def test_a_client_can_reset_but_not_by_omission():
    live = update(None, deployment(replicas=3), now=T1)
    assert managers_of(update(live, changed(live, "metadata", "managedFields", to=[{}]))) == []
    assert managers_of(update(live, changed(live, "metadata", "managedFields", to=[]))) == ["kubectl-edit"]
    reset = changed(live, "metadata", "managedFields", to=[{}])
    assert managers_of(update(live, reset, subresource="status")) == ["kubectl-edit"]


def test_an_object_that_was_never_tracked_is_tracked_from_its_first_apply():
    live = deployment(replicas=3)
    assert managers_of(update(live, changed(live, "spec", "replicas", to=4))) == []
    after = apply(live, deployment(labels={"a": "1"}), now=T2)
    assert managers_of(after) == ["me", "before-first-apply"]
    assert ".spec.replicas" in owned(after, "before-first-apply")


def test_kubectl_takes_over_its_own_client_side_apply():
    text = '{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":3}}'
    live = deployment(replicas=3)
    live["metadata"]["annotations"] = {LAST_APPLIED: text}
    live = update(None, live, manager="kubectl-client-side-apply", now=T1)
    after = apply(live, deployment(replicas=5), manager="kubectl")
    assert after["spec"]["replicas"] == 5
    assert '"replicas":5' in after["metadata"]["annotations"][LAST_APPLIED]
    with pytest.raises(Conflict, match="kubectl-client-side-apply"):
        apply(live, deployment(replicas=5), manager="me")
    scaled = update(live, changed(live, "spec", "replicas", to=4), manager="x")
    with pytest.raises(Conflict, match='conflict with "x"'):
        apply(scaled, deployment(replicas=5), manager="kubectl")


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (changed(deployment(), "metadata", "managedFields", to=[]), BadRequest, "metadata.managedFields must be nil"),
        (
            changed(deployment(), "apiVersion", to="v1"),
            BadRequest,
            "Incorrect version specified in apply patch. Specified version: v1, expected: apps/v1",
        ),
        (
            changed(deployment(), "spec", "foo", to=1),
            Unclassified,
            "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): .spec.foo: field not declared in schema",
        ),
    ],
)
def test_refusals(config, error, message):
    with pytest.raises(error) as refused:
        apply(None, config)
    assert refused.value.message == message


NAMES = st.sampled_from("abc")
CONFIGS = st.builds(
    lambda replicas, image, labels, env: deployment(
        replicas=replicas, image=image, labels=labels, **({"env": [{"name": name, "value": "1"} for name in env]} if env else {})
    ),
    st.none() | st.integers(1, 3),
    NAMES,
    st.dictionaries(NAMES, NAMES),
    st.lists(NAMES, unique=True),
)
MANAGERS = st.sampled_from(["x", "y"])


QUICK = settings(max_examples=40, deadline=None)


@QUICK
@given(st.lists(st.tuples(MANAGERS, CONFIGS), min_size=1, max_size=5))
def test_a_field_lives_as_long_as_one_of_its_owners_applies_it(steps):
    """Labels against a model: a forced apply takes a label over if it changes it, shares it if it does not."""
    live, values, owners = None, {}, {}
    for manager, config in steps:
        live = apply(live, config, manager=manager, force=True)
        labels = config["metadata"].get("labels", {})
        for label, value in labels.items():
            owners[label] = owners.get(label, set()) | {manager} if values.get(label) == value else {manager}
            values[label] = value
        for label in values.keys() - labels.keys():
            if owners[label] == {manager}:
                del values[label], owners[label]
            else:
                owners[label].discard(manager)
        assert live["metadata"].get("labels", {}) == values
        assert apply(live, config, manager=manager) == live
        assert live["spec"]["template"]["spec"]["containers"][0]["image"] == config["spec"]["template"]["spec"]["containers"][0]["image"]


@QUICK
@given(CONFIGS, CONFIGS, CONFIGS)
def test_every_field_that_somebody_set_has_a_manager(first, second, third):
    live = apply(None, first)
    live = update(live, {**second, "metadata": {**second["metadata"], "managedFields": live["metadata"]["managedFields"]}})
    live = apply(live, third, manager="x", force=True)
    everybody = set().union(*(owned(live, manager) for manager in managers_of(live)))
    for key in live["metadata"].get("labels", {}):
        assert f".metadata.labels.{key}" in everybody
    if "replicas" in live["spec"]:
        assert ".spec.replicas" in everybody
