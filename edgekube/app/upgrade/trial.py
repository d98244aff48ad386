"""The story of an upgrade: begin, judge, keep or go back. Every function may find its work done, or half done by one that was killed.

Who judges holds the lock of judges; who changes the data holds the lock of the run directory, so that nobody starts meanwhile.
"""

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from edgekube.app.backup import exchange
from edgekube.app.paths import Paths
from edgekube.app.upgrade import gate, running, state
from edgekube.app.upgrade.running import Started, Way
from edgekube.app.upgrade.state import BACK, DONE, KEEP, TRIAL, Trial
from edgekube.app.upgrade.switch import Switch
from edgekube.lib import pidfile
from edgekube.lib.failpoint import hit
from edgekube.lib.pidfile import AlreadyRunning, PidFile

log = logging.getLogger(__name__)

_LOCK_SECONDS = 30.0

Looks = Callable[[Trial], Callable[[], gate.Look]]
Say = Callable[[str], None]


class Busy(Exception):
    """Somebody else judges just now."""


@contextlib.contextmanager
def judging(paths: Paths, *, wait: bool) -> Iterator[None]:
    """Only one judge at a time. Raises Busy unless `wait`."""
    paths.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(paths.run / "upgrade.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    except BlockingIOError:
        raise Busy("another upgrade is under way") from None
    finally:
        os.close(descriptor)


def way_of(trial: Trial) -> Way:
    return Way(trial.role, trial.unit, trial.args, dict(trial.environ), trial.folder, trial.log)


def begin(paths: Paths, switch: Switch, trial: Trial) -> None:
    """Stop the old version, keep what a roll-back needs, put the new one in its place. Raises OSError: the old one runs again then.

    From the first step on there is a judge that waits: were this process killed, it would start what was stopped.
    """
    way = way_of(trial)
    try:
        exchange.forget(paths.data, state.ASIDE)
        state.save(paths.data, trial)
        switch.keep_previous()
        running.spawn(switch.judge(paths.data))
        hit("upgrade.begin")
        running.stop(way, paths.pid)
        hit("upgrade.stopped")
        with _alone(paths):
            state.keep_data(paths.data, trial.role)
        switch.begin(paths.data)
        hit("upgrade.begun")
    except OSError:
        switch.go_back()
        switch.tidy()
        state.clear(paths.data)
        if trial.was_running and not pidfile.running(paths.pid):
            running.start(way, switch.path)
        raise


@contextlib.contextmanager
def _alone(paths: Paths) -> Iterator[None]:
    deadline = time.monotonic() + _LOCK_SECONDS
    paths.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        try:
            lock = PidFile(paths.pid)
            break
        except AlreadyRunning as error:
            if time.monotonic() > deadline:
                raise OSError(16, f"process {error.pid} does not let go", str(paths.pid)) from None
            time.sleep(0.1)
    try:
        yield
    finally:
        lock.close()


def judge(paths: Paths, switch: Switch, trial: Trial, looks: Looks, now: Callable[[], datetime], started: Started) -> str:
    """Keep it or go back; why it went back, "" if it did not."""
    why = trial.why if trial.phase == BACK else ""
    if trial.phase == TRIAL:
        why = gate.wait(looks(trial), started.ended, timeout=trial.timeout)
    if why or trial.phase == BACK:
        go_back(paths, switch, replace(trial, phase=BACK, why=why), now, started)
        return why or "it was decided before"
    keep(paths, switch, replace(trial, phase=KEEP))
    return ""


def keep(paths: Paths, switch: Switch, trial: Trial) -> None:
    """The new version stays."""
    state.save(paths.data, trial)
    hit("upgrade.keep-decided")
    switch.keep()
    hit("upgrade.kept")
    state.forget_data(paths.data)
    state.save(paths.data, replace(trial, phase=DONE))


def go_back(paths: Paths, switch: Switch, trial: Trial, now: Callable[[], datetime], started: Started) -> None:
    """The old version and its data come back, and run as they ran. Raises OSError."""
    state.save(paths.data, trial)
    hit("upgrade.back-decided")
    way = way_of(trial)
    running.stop(way, paths.pid, switch.next)
    started.end()
    hit("upgrade.back-stopped")
    switch.go_back()
    hit("upgrade.back-switched")
    with _alone(paths):
        state.restore_data(paths.data, trial, now())
    hit("upgrade.back-restored")
    state.save(paths.data, replace(trial, phase=DONE))
    switch.tidy()
    if trial.was_running or way.unit:
        running.start(way, switch.path)


def came_back(looks: Looks, trial: Trial) -> str:
    """Wait for the old version; what is still missing, "" if nothing is."""
    return gate.wait(looks(replace(trial, new=trial.old)), lambda: "", timeout=trial.timeout, stable=0.0)


def resume(paths: Paths, switch: Switch, looks: Looks, now: Callable[[], datetime], say: Say) -> int:
    """Judge what is on trial here, if anything still is. The caller holds the lock of judges; the exit code."""
    trial = state.load(paths.data)
    if not switch.on_trial:
        if trial is not None and trial.phase in (TRIAL, BACK) and trial.was_running and not pidfile.running(paths.pid):
            say(f"the upgrade to {trial.new} was interrupted: {trial.old} is started again")
            running.start(way_of(trial), switch.path)
        return 0
    if trial is None:
        say("what was decided about the program on trial is lost: the previous one comes back")
        switch.go_back()
        return 1
    why = judge(paths, switch, trial, looks, now, running.watch(way_of(trial)))
    say(f"went back to {trial.old}: {why}" if why else f"{trial.new} is the version in use")
    return 1 if why else 0


def complete(data: Path, now: Callable[[], datetime]) -> None:
    """At the start of a server or agent, before it opens anything: what an upgrade has left to do. Raises OSError."""
    trial = state.load(data)
    if trial is None:
        return
    switch = Switch(Path(trial.program))
    if switch.on_trial:
        return  # its judge was started beside
    if trial.phase == BACK:
        state.restore_data(data, trial, now())
    if trial.why:
        extra = {"version": trial.new, "back_to": trial.old, "why": trial.why}
        log.warning("upgrade was taken back; what was written during the trial is lost", extra=extra)
    with contextlib.suppress(OSError):  # a root file system that can not be written to
        switch.tidy()
    state.clear(data)
