"""managedFields: reading, writing, order, and how an object with many writers stays small."""

from edgekube.api import managers
from edgekube.api.managers import Managed, applier, decode, updater


def entry(name, operation="Update", time="2026-01-01T00:00:00Z", **more):
    return {
        "manager": name, "operation": operation, "apiVersion": "v1", "time": time, "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {f"f:{name}": {}}}
    } | more  # fmt: skip


def test_entries_survive_reading_and_writing():
    entries = [entry("a", "Apply"), entry("b"), entry("c", subresource="status")]
    assert decode(entries).encode() == entries


def test_order_is_appliers_then_time_then_name():
    entries = [entry("b"), entry("a", time="2027-01-01T00:00:00Z"), entry("z", "Apply"), entry("a")]
    found = [(found["manager"], found["operation"]) for found in decode(entries).encode()]
    assert found == [("z", "Apply"), ("a", "Update"), ("b", "Update")]  # the two of "a" are one manager
    assert decode(entries).sets[updater("a", "v1", "")] == {"f:spec": {"f:a": {}}}


def test_one_senseless_entry_spoils_them_all():
    assert decode([entry("a"), entry("b", operation="Guess")]).sets == {}
    assert decode([entry("a", fieldsType="FieldsV2")]).sets == {}


def test_an_applier_is_one_manager_in_every_version():
    assert decode([entry("a", "Apply", apiVersion="v1beta1")]).sets.keys() == {applier("a", "")}


def test_the_oldest_writers_are_folded_into_one():
    managed = Managed()
    for number in range(14):
        manager = updater(f"m{number:02}", "v1", "")
        managed.put(manager, {f"f:{number}": {}}, "v1")
        managed.times[manager] = f"2026-01-{number + 1:02}T00:00:00Z"
    managed.cap()
    names = [found["manager"] for found in managed.encode()]
    assert len(names) == managers.MAX_UPDATERS
    assert names[0] == "ancient-changes"
    assert names[-1] == "m13"
    folded = managed.sets[updater("ancient-changes", "v1", "")]
    assert set(folded) == {f"f:{number}" for number in range(5)}


def test_reset():
    assert managers.is_reset([{}])
    assert not managers.is_reset([])
    assert not managers.is_reset([entry("a")])


def test_names_as_conflicts_show_them():
    assert str(updater("kubectl", "apps/v1", "")) == '"kubectl" using apps/v1'
    assert str(updater("hpa", "apps/v1", "scale")) == '"hpa" with subresource "scale" using apps/v1'
    assert str(applier("me", "")) == '"me"'
