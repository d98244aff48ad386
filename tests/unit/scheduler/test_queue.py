"""Which pod is next, and when a rejected one is tried again."""

import asyncio
import dataclasses

import pytest

from edgekube.lib.clock import FakeClock
from edgekube.scheduler.queue import Place, SchedulingQueue
from tests.unit.scheduler.build import pod

FIT, TAINTS = frozenset(["NodeResourcesFit"]), frozenset(["TaintToleration"])


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def queue(clock):
    return SchedulingQueue(clock, {"NodeAdd": FIT | TAINTS, "AssignedPodDelete": FIT})


def drain(queue):
    found = []
    while (entry := queue.pop_now()) is not None:
        found.append(entry.pod.key.name)
    return found


async def test_priority_then_age(queue, clock):
    for name, priority in (("old", 0), ("high", 10), ("young", 0), ("higher", 20)):
        queue.add(pod(name, priority=priority))
        clock.advance(0.1)
    assert drain(queue) == ["higher", "high", "old", "young"]


async def test_a_rejected_pod_waits_for_a_change_that_matters(queue, clock):
    queue.add(pod("a"))
    entry = queue.pop_now()
    queue.reject(entry, TAINTS)
    queue.on_change("AssignedPodDelete")
    assert queue.place_of(entry.pod.uid) is Place.UNSCHEDULABLE
    assert queue.pop_now() is None
    queue.on_change("NodeAdd")
    assert queue.place_of(entry.pod.uid) is Place.BACKOFF
    assert drain(queue) == ["a"]  # nothing else to do: no need to sit the back-off out


async def test_an_active_pod_goes_before_one_in_back_off(queue, clock):
    queue.add(pod("a"))
    queue.reject(queue.pop_now(), FIT)
    queue.on_change("NodeAdd")
    queue.add(pod("b"))
    assert drain(queue) == ["b", "a"]


async def test_errors_sit_their_back_off_out(queue, clock):
    queue.add(pod("a"))
    waits = []
    for _ in range(6):
        entry = queue.pop_now()
        queue.retry(entry)
        assert queue.pop_now() is None
        waits.append(round(entry.ready_at - clock.monotonic()))
        clock.advance(entry.ready_at - clock.monotonic())
    assert waits == [1, 2, 4, 8, 10, 10]


async def test_nobody_is_forgotten(queue, clock):
    queue.add(pod("a"))
    queue.reject(queue.pop_now(), TAINTS)
    clock.advance(299)
    assert queue.pop_now() is None
    clock.advance(2)
    assert drain(queue) == ["a"]


async def test_gated_pods_wait_for_their_gates(queue):
    gated = pod("a", schedulingGates=[{"name": "x"}])
    queue.add(gated)
    assert queue.pop_now() is None
    queue.update(dataclasses.replace(gated, gates=()), relevant=True)
    assert drain(queue) == ["a"]


async def test_an_update_that_matters_wakes_the_pod(queue, clock):
    wanting = pod("a")
    queue.add(wanting)
    queue.reject(queue.pop_now(), TAINTS)
    queue.update(wanting, relevant=False)
    assert queue.pop_now() is None
    queue.update(wanting, relevant=True)
    assert drain(queue) == ["a"]
    assert not queue.update(wanting, relevant=True)


async def test_removed_pods_do_not_come_back(queue):
    wanting = pod("a")
    queue.add(wanting)
    queue.remove(wanting.uid)
    assert queue.pop_now() is None
    assert len(queue) == 0


async def test_pop_waits_until_something_comes(queue):
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiting = group.create_task(queue.pop())
        await asyncio.sleep(0)
        queue.add(pod("a"))
        assert (await waiting).pod.key.name == "a"
