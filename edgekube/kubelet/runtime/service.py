"""Our own `podman system service`: started with our configuration, watched, restarted when it dies or hangs, left alone when edgekube goes.

The service is only the door: containers belong to their conmon, so its death or restart never touches them. Facts behind this file:
- it is configured by files (CONTAINERS_CONF and its two sisters); the command line's --root would override static_dir;
- its database lies on tmpfs: a boot starts clean. What the storage still knows from before a boot is removed once per boot;
- on a host with both cgroup hierarchies mounted crun wants /sys/fs/cgroup/unified out of sight: the service then lives in a mount
  namespace of its own, slave of the host's, so that namespaces pinned later are visible in it.

Reads and writes run-dir/podman. A live service of an earlier run with the same configuration is used, not replaced.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import itertools
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

from edgekube.kubelet.runtime import userdata
from edgekube.kubelet.runtime.cgroups import Hierarchy
from edgekube.kubelet.runtime.mounts import start_time
from edgekube.kubelet.runtime.pidfd import ended
from edgekube.kubelet.runtime.protocol import RuntimeDown
from edgekube.kubelet.runtime.pulls import prepare_home
from edgekube.kubelet.runtime.rest import Rest, RestError
from edgekube.kubelet.runtime.settings import RuntimeConfig, containers_conf, registries_conf, storage_conf
from edgekube.lib.files import write_if_changed
from edgekube.lib.process import ProgramMissing, clean_environment, require
from edgekube.lib.tasks import TaskScope

log = logging.getLogger(__name__)

_START_SECONDS = 30.0


class Service:
    """Keeps the socket alive. `rest` is the door for everybody else."""

    def __init__(self, config: RuntimeConfig, hierarchy: Hierarchy, *, patience: float = 10.0) -> None:
        self._patience = patience  # for one ping; three unanswered ones in a row mean that the service hangs
        self._config, self._hierarchy = config, hierarchy
        self.rest = Rest(config.service_socket)
        self.pid = 0
        self.oci_runtime = ""
        self._suspect = asyncio.Event()

    async def run(self, ready: asyncio.Event) -> None:
        """Keep the service up until cancelled; cancelling leaves it running."""
        if self._config.socket:
            await self._foreign(ready)
        delay = 0.5
        while True:
            try:
                await self.ensure()
                ready.set()
                delay = 0.5
                await self._until_lost()
            except (RuntimeDown, RestError, OSError, ProgramMissing) as error:
                log.warning("podman service is down", extra={"error": str(error)})
            await asyncio.sleep(delay)
            delay = min(delay * 2, 10.0)

    def suspect(self) -> None:
        """A call ran into its deadline: check whether the service hangs."""
        self._suspect.set()

    async def ping(self) -> None:
        """Returns when the service answers. Raises RuntimeDown."""
        await self.rest.ping(self._patience)

    async def ensure(self) -> None:
        """A service that answers: the one from an earlier run, else a new one. Raises RuntimeDown.

        Under a lock: a command of the same installation (import, uninstall) may want the same at the same time.
        """
        async with self._alone():
            await self._ensure()

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        self._config.run_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._config.run_dir / "podman.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            for pause in itertools.repeat(0.05):
                if _lock(lock):
                    break
                await asyncio.sleep(pause)
            yield
        finally:
            os.close(lock)

    async def _ensure(self) -> None:
        self.oci_runtime = self.oci_runtime or await asyncio.to_thread(_choose_runtime)
        digest = await asyncio.to_thread(self._write_files)
        pid = self._recorded(digest)
        if pid:
            with contextlib.suppress(RuntimeDown, RestError):
                await self.rest.ping(3.0)
                self.pid = pid
                log.info("podman service adopted", extra={"pid": pid})
                return
        await self._kill_recorded()
        self.rest.close()
        self.pid = await asyncio.to_thread(self._spawn, digest)
        await self._wait_answer()
        log.info("podman service started", extra={"pid": self.pid, "oci_runtime": self.oci_runtime})
        await self._after_boot()

    def enter_prefix(self) -> list[str]:
        """What to put before the OCI runtime's argv, so that it sees the cgroups as the service does."""
        return ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "--"] if self._hierarchy.hybrid and self.pid else []

    async def end(self) -> None:
        """Stop the service (uninstall); containers are not its children and keep running."""
        await self._kill_recorded()
        await asyncio.to_thread(self._hierarchy.remove_service)
        self.rest.close()

    async def _foreign(self, ready: asyncio.Event) -> None:
        while True:
            with contextlib.suppress(RuntimeDown, RestError):
                await self.ping()
                self.oci_runtime = self.oci_runtime or await asyncio.to_thread(_choose_runtime)
                ready.set()
            self._suspect.clear()
            await self._suspect.wait()
            await asyncio.sleep(1.0)

    async def _until_lost(self) -> None:
        """Returns when the process has ended or, three pings in a row unanswered, has been killed."""
        async with TaskScope("podman-service") as scope:
            gone = scope.spawn(ended(self.pid), name="ended")
            while not gone.done():
                wake = scope.spawn(self._suspect.wait(), name="suspect")
                await asyncio.wait({gone, wake}, return_when=asyncio.FIRST_COMPLETED)
                wake.cancel()
                if not gone.done() and await self._hangs():
                    log.error("podman service hangs: killing it, containers keep running", extra={"pid": self.pid})
                    await self._kill_recorded(signal.SIGKILL, only=self.pid)
        self.rest.close()

    async def _hangs(self) -> bool:
        for _ in range(3):
            try:
                await self.ping()
            except (RuntimeDown, RestError):
                continue
            self._suspect.clear()
            return False
        return True

    def _environment(self) -> dict[str, str]:
        home = self._config.home
        return clean_environment({
            "CONTAINERS_CONF": f"{home}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{home}/storage.conf",
            "CONTAINERS_REGISTRIES_CONF": f"{home}/registries.conf",
            "TMPDIR": str(self._config.scratch),
            "HOME": str(self._config.user_home),
        })  # fmt: skip

    def _write_files(self) -> str:
        """Write the configuration; its digest says whether a running service still fits. Throws away the state of an earlier boot."""
        config, home = self._config, self._config.home
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        marker = home / "boot_id"
        if home.exists() and (not marker.exists() or marker.read_text() != boot):  # run-dir is not a tmpfs
            shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True, exist_ok=True)
        marker.write_text(boot)
        for folder in (config.storage, config.scratch, config.storage / "volumes"):
            folder.mkdir(parents=True, exist_ok=True)
        nofile = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1 << 20)  # an unprivileged edgekube cannot give more than it has
        pid_max = int(Path("/proc/sys/kernel/pid_max").read_text())  # podman lowers its own limit to this
        nproc = min(resource.getrlimit(resource.RLIMIT_NPROC)[1] % (1 << 63), pid_max)
        texts = {
            "containers.conf": containers_conf(config, runtime=self.oci_runtime, nofile=nofile, nproc=nproc),
            "storage.conf": storage_conf(config),
            "registries.conf": registries_conf(),
        }
        for name, text in texts.items():
            write_if_changed(home / name, text.encode())
        userdata.sweep(storage=config.storage, memory=config.userdata)
        prepare_home(config.user_home)
        return hashlib.sha256("".join((*texts.values(), _netns_name(), str(config.user_home))).encode()).hexdigest()

    def _recorded(self, digest: str) -> int:
        """Pid of the service an earlier run left, if it lives and has this configuration."""
        record = self._read_record()
        pid = int(record.get("pid", 0))
        return pid if pid and record.get("digest") == digest and start_time(pid) == record.get("started") else 0

    def _read_record(self) -> dict[str, str]:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self._config.home / "service.json").read_bytes())
            return found if isinstance(found, dict) else {}
        return {}

    async def _kill_recorded(self, first: signal.Signals = signal.SIGTERM, *, only: int = 0) -> None:
        record = self._read_record()
        pid = int(record.get("pid", 0))
        if not pid or start_time(pid) != record.get("started") or only not in (0, pid):
            return
        for sign, seconds in ((first, 3.0), (signal.SIGKILL, 10.0)):
            with contextlib.suppress(ProcessLookupError, TimeoutError):
                os.kill(pid, sign)
                async with asyncio.timeout(seconds):
                    await ended(pid)
                return

    def _spawn(self, digest: str) -> int:
        home = self._config.home
        podman = require("podman", package="podman")
        with contextlib.suppress(FileNotFoundError):
            self._config.service_socket.unlink()
        argv = [podman, "--log-level=error", "system", "service", "--time=0", f"unix://{self._config.service_socket}"]
        if self._hierarchy.hybrid:
            script = 'umount "$0"; exec "$@"'
            argv = ["unshare", "-m", "--propagation", "slave", "sh", "-c", script, str(self._hierarchy.unified), *argv]
        with (home / "service.log").open("wb") as errors:
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, cwd="/", env=self._environment(), start_new_session=True
            )
        child.returncode = 0  # waited for by pidfd and reaped below: nobody calls Popen.wait
        self._hierarchy.place_service(child.pid)
        record = {"pid": child.pid, "started": start_time(child.pid), "digest": digest}
        (home / "service.json").write_text(json.dumps(record))
        return child.pid

    async def _wait_answer(self) -> None:
        try:
            async with asyncio.timeout(_START_SECONDS):
                while True:
                    with contextlib.suppress(RuntimeDown):
                        await self.rest.ping(5.0)
                        return
                    if not start_time(self.pid):
                        raise RuntimeDown(f"podman service ended at once: {self._last_words()}")
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            raise RuntimeDown(f"podman service did not answer within {_START_SECONDS:g} s: {self._last_words()}") from error

    def _last_words(self) -> str:
        try:
            lines = (self._config.home / "service.log").read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else "it said nothing"

    async def _after_boot(self) -> None:
        """Once per boot: storage may hold containers that the fresh database does not know; their names must be free again."""
        marker = self._config.home / "swept"
        if marker.exists():
            return
        found = await self.rest.call("GET", "/containers/json", query={"all": True, "external": True}, timeout=60.0)
        for one in found or ():
            if list(one.get("Command") or ()) == ["storage"]:
                with contextlib.suppress(RestError):
                    await self.rest.call("DELETE", f"/containers/{one['Id']}", query={"force": True}, timeout=60.0)
                    log.info("container of an earlier boot removed", extra={"container": one["Id"][:12]})
        marker.touch()


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _netns_name() -> str:
    """hostNetwork pods live in the service's network namespace, so a service from another one does not fit."""
    return os.readlink("/proc/self/ns/net")


def _choose_runtime() -> str:
    """crun where it is installed (a sixth of runc's CPU for a probe), else runc."""
    for name in ("crun", "runc"):
        path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")
        if path and subprocess.run([path, "--version"], check=False, capture_output=True, env=clean_environment()).returncode == 0:
            return name
    raise ProgramMissing("neither crun nor runc was found: install the package crun")
