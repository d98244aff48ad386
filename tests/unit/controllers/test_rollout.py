"""The arithmetic of rollouts: the tables of upstream's rolling_test.go, sync_test.go and deployment_util_test.go, and a simulated rollout."""

import pytest

from edgekube.controllers.rollout import (
    DeploymentFacts,
    SetFacts,
    fenceposts,
    is_saturated,
    is_scaling,
    plan_annotations,
    plan_cleanup,
    plan_new_replicas,
    plan_old_replicas,
    plan_scale,
    scaled,
)


def rs(name, replicas, available=None, **facts):
    created = facts.pop("created", name)
    return SetFacts(
        name=name, uid=name, created=created, replicas=replicas, available=replicas if available is None else available, **facts
    )


def deployment(replicas, surge=0, unavailable=0, **facts):
    return DeploymentFacts(replicas, max_surge=surge, max_unavailable=unavailable, **facts)


@pytest.mark.parametrize(
    ("value", "total", "up", "down"), [(3, 10, 3, 3), ("25%", 10, 3, 2), ("100%", 7, 7, 7), ("0%", 7, 0, 0), ("1%", 10, 1, 0)]
)
def test_percentages(value, total, up, down):
    assert (scaled(value, total, up=True), scaled(value, total, up=False)) == (up, down)


@pytest.mark.parametrize(
    ("surge", "unavailable", "replicas", "result"),
    [("0%", "0%", 10, (0, 1)), ("39%", "39%", 10, (4, 3)), (1, 0, 1, (1, 0)), ("25%", "25%", 1, (1, 0))],
)
def test_fenceposts(surge, unavailable, replicas, result):
    assert fenceposts(surge, unavailable, replicas) == result


@pytest.mark.parametrize(
    ("replicas", "surge", "old", "new", "expected"),
    [
        (10, 0, 10, 0, 0),  # no room without surge
        (10, 2, 10, 0, 2),
        (10, 2, 5, 0, 7),
        (10, 2, 10, 2, 2),
        (10, 2, 0, 10, 10),
        (4, 5, 0, 9, 4),  # beyond the wanted size: straight down
        (10, 20, 0, 0, 10),  # never more than wanted
    ],
)
def test_new_set(replicas, surge, old, new, expected):
    assert plan_new_replicas(deployment(replicas, surge), rs("new", new), [rs("old", old)]) == expected


def test_recreate_takes_all_at_once():
    assert plan_new_replicas(DeploymentFacts(5, rolling=False), rs("new", 0), []) == 5


@pytest.mark.parametrize(
    ("replicas", "unavailable", "old", "old_ready", "new", "new_ready", "expected"),
    [
        (10, 0, 10, 10, 0, 0, 9),  # without surge one must be able to go
        (10, 2, 10, 10, 0, 0, 8),
        (10, 2, 10, 8, 0, 0, 8),  # the unhealthy ones go first
        (10, 2, 10, 4, 0, 0, 8),
        (10, 2, 8, 8, 2, 0, 8),  # the new ones are not available yet
        (10, 2, 8, 8, 2, 2, 6),
        (10, 2, 0, 0, 10, 10, 0),
    ],
)
def test_old_set(replicas, unavailable, old, old_ready, new, new_ready, expected):
    plan = plan_old_replicas(deployment(replicas, 0, unavailable), rs("new", new, new_ready), [rs("old", old, old_ready)])
    assert plan.get("old", old) == expected


def test_what_a_shrunk_set_still_shows_is_not_counted():
    assert plan_old_replicas(deployment(4, 1, 1), rs("new", 2, 1), [rs("old", 3, 4)]) == {"old": 2}


def test_old_sets_shrink_oldest_first():
    plan = plan_old_replicas(deployment(10, 0, 5), rs("new", 0), [rs("b", 7), rs("a", 3)])
    assert plan == {"a": 0, "b": 5}


@pytest.mark.parametrize(
    ("facts", "new", "old", "expected"),
    [
        (deployment(20), rs("new", 10, maximum=10), [], {"new": 20}),
        (deployment(5), rs("new", 10, maximum=10), [], {"new": 5}),
        # upstream TestScale: sizes share in proportion to what they had
        (deployment(12), rs("c", 5, maximum=10), [rs("b", 5, maximum=10)], {"c": 6, "b": 6}),
        (deployment(20), rs("c", 5, maximum=10), [rs("b", 3, maximum=10), rs("a", 2, maximum=10)], {"c": 10, "b": 6, "a": 4}),
        (deployment(5), rs("c", 5, maximum=10), [rs("b", 3, maximum=10), rs("a", 2, maximum=10)], {"c": 2, "b": 2, "a": 1}),
        (deployment(5), rs("c", 7, maximum=7), [rs("b", 0)], {"c": 5}),
        (deployment(7), None, [rs("b", 5, maximum=10), rs("a", 5, maximum=10)], {"b": 4, "a": 3}),
        (deployment(0), rs("c", 3, maximum=6), [rs("b", 3, maximum=6)], {"c": 0, "b": 0}),
        (deployment(6), rs("c", 0), [rs("b", 0)], {"c": 6}),
        (deployment(6), None, [rs("b", 0), rs("a", 0)], {"b": 6}),
        (deployment(20), rs("c", 20, desired=20, maximum=20), [rs("b", 3, maximum=10)], {"b": 0}),
        (DeploymentFacts(6, rolling=False), rs("c", 2), [rs("b", 2)], {}),
    ],
)
def test_scale(facts, new, old, expected):
    assert plan_scale(facts, new, old) == expected


def test_scaling_is_noticed_by_the_annotation():
    assert is_scaling(deployment(5), [rs("a", 3, desired=3)])
    assert not is_scaling(deployment(3), [rs("a", 3, desired=3)])
    assert not is_scaling(deployment(5), [rs("a", 0, desired=3)])
    assert is_saturated(deployment(3), rs("a", 3, desired=3))
    assert not is_saturated(deployment(3), rs("a", 3, 2, desired=3))


def test_cleanup_takes_the_oldest_revisions_that_are_empty_and_settled():
    old = [rs("c", 0, revision=3), rs("a", 0, revision=1), rs("b", 0, revision=2), rs("d", 0, revision=4)]
    assert plan_cleanup(2, old) == ["a", "b"]
    assert plan_cleanup(0, [rs("a", 0, actual=1), rs("b", 1), rs("c", 0, generation=2, observed=1), rs("d", 0)]) == ["d"]
    assert plan_cleanup(None, old) == plan_cleanup(2**31 - 1, old) == ()


def test_annotations_of_a_set_that_serves_again():
    parent = {"team": "x", "kubectl.kubernetes.io/last-applied-configuration": "{}", "deployment.kubernetes.io/revision": "2"}
    first = plan_annotations(parent, {}, 1)
    assert first == {"team": "x", "deployment.kubernetes.io/revision": "1"}
    again = plan_annotations(parent, first, 3)
    assert again == first | {"deployment.kubernetes.io/revision": "3", "deployment.kubernetes.io/revision-history": "1"}
    assert plan_annotations(parent, again, 2) == again
    assert plan_annotations(parent, again, 5)["deployment.kubernetes.io/revision-history"] == "1,3"


def test_history_is_bounded():
    current = {
        "deployment.kubernetes.io/revision": "9999",
        "deployment.kubernetes.io/revision-history": ",".join(str(n) for n in range(1000, 1400)),
    }
    history = plan_annotations({}, current, 10000)["deployment.kubernetes.io/revision-history"]
    assert len(history) <= 2000
    assert history.endswith(",1399,9999")


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable"), [(1, "25%", "25%"), (3, 1, 0), (10, "25%", "25%"), (10, 0, 1), (7, "100%", "100%"), (5, 0, 0)]
)
def test_a_whole_rollout_keeps_its_promises(replicas, surge, unavailable):
    """New pods become available one at a time; at every step neither limit is broken, and it ends."""
    facts = deployment(replicas, surge, unavailable)
    old, new, available = replicas, 0, 0
    for _ in range(200):
        size = plan_new_replicas(facts, rs("new", new, available), [rs("old", old)])
        if size == new:
            old = plan_old_replicas(facts, rs("new", new, available), [rs("old", old)]).get("old", old)
        new = size
        assert old + new <= replicas + facts.surge
        assert old + available >= replicas - facts.unavailable
        if (old, available) == (0, replicas):
            break
        available = min(new, available + 1)
    assert (old, new, available) == (0, replicas, replicas)
