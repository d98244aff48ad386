"""Start in order, stop in reverse, one failure ends all."""

import asyncio

import pytest

from edgekube.lib.supervise import StartTimeout, supervise


class Part:
    def __init__(self, name, log, *, fail=None, never_ready=False, ends=False):
        self.name, self.log, self.fail, self.never_ready, self.ends = name, log, fail, never_ready, ends

    async def run(self, ready):
        self.log.append(f"{self.name} starts")
        if self.fail:
            raise self.fail
        try:
            if not self.never_ready:
                ready.set()
            if self.ends:
                return
            await asyncio.Event().wait()
        finally:
            self.log.append(f"{self.name} stops")


async def test_order():
    log, stop = [], asyncio.Event()
    await supervise([Part("a", log), Part("b", log)], stop, on_ready=lambda: (log.append("ready"), stop.set()))
    assert log == ["a starts", "b starts", "ready", "b stops", "a stops"]


async def test_a_failed_start_stops_what_had_started():
    log = []
    with pytest.raises(BaseExceptionGroup) as caught:
        await supervise([Part("a", log), Part("b", log, fail=OSError("no disk"))], asyncio.Event())
    assert "no disk" in repr(caught.value.exceptions)
    assert log == ["a starts", "b starts", "a stops"]


async def test_a_part_that_ends_by_itself_ends_all():
    log = []
    with pytest.raises(BaseExceptionGroup):
        await supervise([Part("a", log), Part("b", log, ends=True)], asyncio.Event())
    assert log[-1] == "a stops"


async def test_a_part_that_is_never_ready_is_named():
    log = []
    with pytest.raises(BaseExceptionGroup) as caught:
        await supervise([Part("slow", log, never_ready=True)], asyncio.Event(), start_timeout=0.01)
    (error,) = caught.value.exceptions
    assert isinstance(error, StartTimeout)
    assert "slow" in str(error)


async def test_stop_during_start():
    log, stop = [], asyncio.Event()
    stop.set()
    await supervise([Part("a", log, never_ready=True)], stop, on_ready=lambda: log.append("ready"))
    assert "ready" not in log
