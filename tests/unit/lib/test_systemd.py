"""What systemd is told, over a real socket: readiness, and signs of life that only a living loop gives."""

import asyncio
import io
import logging
import os
import socket
import sys
import time

import pytest

from edgekube.lib import log as logs
from edgekube.lib.systemd import feed_watchdog, notify, watchdog_seconds


@pytest.fixture
def manager(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(str(tmp_path / "notify"))
        found.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield found


def heard(manager):
    found = []
    while True:
        try:
            found.append(manager.recv(100).decode())
        except BlockingIOError:
            return found


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "7"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "8"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
    ],
)
def test_the_watchdog_is_only_ours_if_it_means_this_process(environ, expected):
    assert watchdog_seconds(environ, 7) == expected


async def test_a_living_loop_feeds_the_watchdog_and_a_stuck_one_does_not(manager):
    loop = asyncio.get_running_loop()
    feed_watchdog(loop, 0.03)
    came = loop.create_future()
    loop.add_reader(manager.fileno(), lambda: came.done() or came.set_result(None))
    await came
    loop.remove_reader(manager.fileno())
    heard(manager)
    time.sleep(0.1)  # the loop is stuck
    assert heard(manager) == []
    await asyncio.sleep(0.02)
    assert "WATCHDOG=1" in heard(manager)


async def test_nobody_is_told_what_nobody_asked(manager):
    feed_watchdog(asyncio.get_running_loop(), 0.0)
    assert heard(manager) == []
    notify("READY=1")
    assert heard(manager) == ["READY=1"]


def test_every_line_for_the_journal_has_its_level():
    assert logs.for_journal(logging.ERROR, "a\nb") == "<3>a\n<3>b"


def test_only_the_journal_gets_the_journals_marks(tmp_path, monkeypatch):
    with (tmp_path / "log").open("w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        found = os.fstat(file.fileno())
        assert logs.is_journal({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
        assert not logs.is_journal({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"})
        assert not logs.is_journal({})
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not logs.is_journal({"JOURNAL_STREAM": "1:2"})
