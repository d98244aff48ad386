"""The runner: one worker per key, nothing lost, errors of one key stay there, own writes are waited for."""

import asyncio
import contextlib

import pytest

from edgekube.api.catalog import POD, REPLICA_SET
from edgekube.api.types import Key
from edgekube.client.cache import Cache
from edgekube.controllers.base import DONE, Owns, Result
from edgekube.controllers.consistency import CURRENT
from edgekube.controllers.runner import ADDS, DEPTH, RETRIES, Runner
from edgekube.errors import Conflict, Forbidden
from tests.unit.client.test_index import item


class Controller:
    """Does what the test puts into `act`."""

    primary = REPLICA_SET
    deadline = 1.0

    def __init__(self, name, act, *, workers=2, watches=()):
        self.name, self.act, self.workers, self._watches = name, act, workers, watches
        self.seen = []
        self.enough = asyncio.Event()

    def watches(self):
        return self._watches

    async def reconcile(self, key):
        self.seen.append(key)
        if self.seen.count(key) == 3:
            self.enough.set()
        result = self.act(key)
        return (await result if asyncio.iscoroutine(result) else result) or DONE


@pytest.fixture
def cache():
    return Cache(client=None, sources=(REPLICA_SET, POD))


@contextlib.asynccontextmanager
async def running(runner):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(runner.run())
        async with asyncio.timeout(5):
            yield
        task.cancel()


async def turns(count=20):
    for _ in range(count):
        await asyncio.sleep(0)


def put(cache, kind, thing):
    cache._stores[kind].put(thing)


async def test_changes_wake_the_object_and_its_owner(cache):
    controller = Controller("wakes", lambda _key: None, watches=(Owns(POD),))
    async with running(Runner(controller, cache)):
        put(cache, REPLICA_SET, item("web", uid="rs"))
        await turns()
        put(cache, POD, item("web-1", controller="rs"))
        put(cache, POD, item("web-2", controller="unknown"))
        await turns()
        put(cache, POD, item("web-1", 2))
        await turns()
    assert controller.seen == [Key("default", "web")] * 3


async def test_one_worker_per_key_and_no_change_lost(cache):
    gate, inside = asyncio.Event(), []

    async def act(_key):
        inside.append("in")
        await gate.wait()
        inside.append("out")

    controller = Controller("single", act, workers=4)
    runner = Runner(controller, cache)
    async with running(runner):
        for _ in range(3):
            runner.add("k")
            await turns()
        assert inside == ["in"]
        gate.set()
        await turns()
    assert inside == ["in", "out"] * 2


@pytest.mark.parametrize("error", [Conflict("race"), Forbidden("no"), RuntimeError("bug"), TimeoutError("slow")])
async def test_errors_are_tried_again_and_stay_with_their_key(cache, error):
    tries = []

    def act(key):
        tries.append(key)
        if key == "bad" and tries.count("bad") < 3:
            raise error

    controller = Controller("fails", act, workers=1)
    runner = Runner(controller, cache)
    async with running(runner):
        before = RETRIES.labels("fails")._value.get()
        runner.add("bad")
        runner.add("good")
        await controller.enough.wait()
    assert tries.count("good") == 1
    assert RETRIES.labels("fails")._value.get() - before == 2


async def test_a_result_may_ask_for_another_look(cache):
    controller = Controller("again", lambda _key: Result(after=0.01) if len(controller.seen) < 3 else DONE)
    runner = Runner(controller, cache)
    async with running(runner):
        runner.add("k")
        await controller.enough.wait()


async def test_the_next_look_waits_until_the_cache_shows_our_writes(cache):
    def act(key):
        if len(controller.seen) == 1:
            CURRENT.get().wrote(POD, {"kind": "Pod", "metadata": {"resourceVersion": "7"}})
            CURRENT.get().deleted(POD, Key("default", "old"), "uid-old")

    controller = Controller("waits", act)
    put(cache, POD, item("old"))
    runner = Runner(controller, cache)
    async with running(runner):
        runner.add("k")
        await turns()
        runner.add("k")
        await turns()
        assert len(controller.seen) == 1
        cache._stores[POD].reached(7)
        await turns()
        assert len(controller.seen) == 1
        cache._stores[POD].drop(Key("default", "old"))
        await turns()
        assert len(controller.seen) == 2


async def test_metrics_have_upstreams_names(cache):
    controller = Controller("my-thing-controller", lambda _key: None)
    runner = Runner(controller, cache)
    assert ADDS.labels("my_thing")._value.get() == 0
    runner.add("k")
    assert ADDS.labels("my_thing")._value.get() == 1
    assert next(iter(DEPTH.labels("my_thing").collect())).samples[0].value == 1
