"""The work queue: coalescing, one worker per key, delays."""

import asyncio

import pytest

from edgekube.lib.queue import WorkQueue


async def test_adds_coalesce_and_keep_order():
    queue = WorkQueue()
    for key in ("a", "b", "a", "c", "b"):
        queue.add(key)
    assert [await queue.get() for _ in range(len(queue))] == ["a", "b", "c"]


async def test_a_key_added_while_processed_comes_again_only_after_done():
    queue = WorkQueue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_the_earliest_delay_wins_and_add_now_beats_it():
    queue = WorkQueue()
    queue.add_after("late", 0.02)
    queue.add_after("late", 30)
    async with asyncio.timeout(2):
        assert await queue.get() == "late"
    queue.done("late")
    queue.add_after("x", 30)
    queue.add("x")
    assert await queue.get() == "x"
    queue.done("x")
    assert len(queue) == 0


async def test_a_cancelled_waiter_does_not_swallow_a_key():
    queue = WorkQueue()
    loop = asyncio.get_running_loop()
    first, second = loop.create_task(queue.get()), loop.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    async with asyncio.timeout(2):
        assert await second == "a"
    with pytest.raises(asyncio.CancelledError):
        await first
