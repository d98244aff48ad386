"""One process: one event loop, signals, readiness told once, and every way to fail told in one line.

Nothing is made before the preflight has passed and the lock of the run directory is held.
"""

import asyncio
import faulthandler
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from edgekube.agent.refusal import IdentityDamaged, JoinRefused
from edgekube.app import preflight
from edgekube.app.backup import exchange
from edgekube.app.paths import paths_of
from edgekube.app.timekeeper import make_clock
from edgekube.config import ConfigError, Settings
from edgekube.lib import log as logs
from edgekube.lib.pidfile import AlreadyRunning, PidFile, running
from edgekube.lib.supervise import StartTimeout
from edgekube.lib.systemd import feed_watchdog, notify, watchdog_seconds
from edgekube.store.protocol import StoreDamaged, StoreUnavailable

log = logging.getLogger(__name__)

_SWITCH_SECONDS = 0.0005  # the store's thread gets the interpreter back in half a millisecond instead of five
_FILES = 65536
# A pass over five thousand new objects takes 1 ms. Small thresholds bound how long one pass holds the loop; since requests free what they
# make by reference counts, passes are rare all the same. A full one (54 ms with 10,000 pods) comes after 50 million new objects.
_COLLECT = (5_000, 2, 5_000)
_KNOWN = (StoreDamaged, StoreUnavailable, StartTimeout, IdentityDamaged, JoinRefused, ConfigError, OSError)


Run = Callable[[Settings, asyncio.Event, Callable[[], None]], Awaitable[None]]


def serve(settings: Settings, *, agent: bool = False) -> int:
    """Run a server, or an agent, until SIGTERM or SIGINT. Returns the exit code."""
    logs.set_up(settings.log_level)
    paths = paths_of(settings)
    # A server that runs here already is the reason to tell, not the ports it uses.
    if holder := running(paths.pid):
        return _failed(f"another edgekube uses {paths.run}: {AlreadyRunning(holder)}")
    if reasons := preflight.refusals(settings, agent=agent):
        return _failed("; ".join(reasons))
    try:
        paths.ensure(agent=agent)
        lock = PidFile(paths.pid)
    except AlreadyRunning as error:
        return _failed(f"another edgekube uses {paths.run}: {error}")
    except OSError as error:
        return _failed(f"{error.filename} can not be made: {error.strerror}")
    try:
        return _complete(paths.data) or _run(settings, agent=agent)
    finally:
        lock.close()


def _complete(data: Path) -> int:
    """A restore or an upgrade that was decided and then interrupted happens now; the exit code if it can not."""
    try:
        if exchange.finish(data):
            log.warning("interrupted restore completed", extra={"path": str(data)})
        if (data / "upgrade").exists():
            from edgekube.app.upgrade.trial import complete

            complete(data, make_clock(data).now)
    except OSError as error:
        return _failed(f"an interrupted restore can not be completed: {_told(error)}")
    return 0


def _run(settings: Settings, *, agent: bool) -> int:
    import uvloop

    faulthandler.enable()  # systemd's watchdog ends a stuck process by SIGABRT: the journal gets to know where it was stuck
    _raise_limits()
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.disable()  # until it is ready: what start-up makes, stays
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_stopped(settings, _what(agent), node=agent or not settings.disable_agent))
    except BaseExceptionGroup as group:
        return _crashed(group)
    except (*_KNOWN, RuntimeError) as error:
        return _crashed(error)
    return 0


def _raise_limits() -> None:
    """Open files: the soft limit is for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _what(agent: bool) -> Run:
    if agent:
        from edgekube.app.agent import run_agent

        return run_agent
    from edgekube.app.server import run_server

    return run_server


async def _until_stopped(settings: Settings, run: Run, *, node: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run(settings, stop, _announce)
    notify("STOPPING=1")
    if node:
        from edgekube.app.shutdown import end_pods_with_machine

        await asyncio.to_thread(end_pods_with_machine, settings)


def _announce() -> None:
    """All parts are ready: tell systemd and whoever reads stderr; what start-up made is not garbage to be looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)
    gc.enable()
    notify("READY=1")
    # Not before: the first sign of life starts systemd's clock, and starting may hold the loop for long on a slow machine.
    feed_watchdog(asyncio.get_running_loop(), watchdog_seconds(os.environ, os.getpid()))
    logs.say(logging.INFO, "edgekube is ready")


def _crashed(error: BaseException) -> int:
    reasons = list(dict.fromkeys(_leaves(error)))
    for leaf in reasons:
        if not isinstance(leaf, _KNOWN):
            log.error("internal error", exc_info=leaf)
    return _failed("; ".join(map(_told, reasons)))


def _told(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    return str(error) or type(error).__name__


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _failed(reason: str) -> int:
    logs.say(logging.ERROR, f"edgekube: {reason}")
    return 1
