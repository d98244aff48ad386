"""What every Runtime promises: each test runs on podman with real containers and on the fake that kubelet tests use."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekube.kubelet.runtime.protocol import ContainerInfo, Resources, Runtime, RuntimeDown, RuntimeFailure, Sandbox, SandboxSpec, Security
from edgekube.kubelet.runtime.service import Service
from tests.kit import images
from tests.kit.fake_runtime import FakeRuntime
from tests.kit.registry import registry
from tests.kit.requires import needs
from tests.kit.runtimes import Place, container, make_pod, place, running, unmount_below
from tests.kit.until import until

REF = "busybox:test"
LOOP = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"]


@pytest.fixture(scope="module")
def podman_place() -> Iterator[Place]:
    with place() as found:
        images.archive(found.base / "busybox.tar")
        yield found


class Bench:
    """A runtime and the means to use it."""

    def __init__(self, runtime: Runtime, log_dir: Path, spot: Place | None) -> None:
        self.runtime, self.log_dir, self.spot = runtime, log_dir, spot
        self.image = ""
        self.ended: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.boxes: list[Sandbox] = []

    async def pod(self, name: str = "web", **options: Any) -> Sandbox:
        box = await make_pod(self.runtime, name, groups=self.spot.groups if self.spot else None, **options)
        self.boxes.append(box)
        return box

    async def create(self, box: Sandbox, command: list[str], **options: Any) -> str:
        groups = self.spot.groups if self.spot else None
        spec = container(box, self.image, command, log_dir=self.log_dir, groups=groups, **options)
        return await self.runtime.create(spec, box)

    async def start(self, box: Sandbox, command: list[str], **options: Any) -> str:
        found = await self.create(box, command, **options)
        await self.runtime.start(found)
        return found

    async def info(self, container_id: str) -> ContainerInfo:
        found = await self.runtime.inspect(container_id)
        assert found is not None
        return found

    async def wait_ended(self, container_id: str) -> ContainerInfo:
        async with asyncio.timeout(20):
            while (await self.info(container_id)).state != "exited":
                await self.ended.get()
        return await self.info(container_id)


@pytest.fixture(params=["fake", pytest.param("podman", marks=needs("root", "podman", "busybox"))])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "fake":
            made = Bench(FakeRuntime(), tmp_path, None)
        else:
            spot: Place = request.getfixturevalue("podman_place")
            made = Bench(await stack.enter_async_context(running(spot.runtime())), spot.config.log_dir, spot)
        runtime = made.runtime
        image = await runtime.image(REF)
        if image is None:
            assert made.spot is not None
            assert await runtime.load_image(made.spot.base / "busybox.tar") == ["docker.io/library/busybox:test"]
            image = await runtime.image(REF)
        assert image is not None
        made.image = image.id
        runtime.on_exit(lambda uid, container_id: made.ended.put_nowait((uid, container_id)))
        yield made
        for one in await runtime.containers():
            await runtime.remove(one.id)
        for box in made.boxes:
            await runtime.remove_sandbox(box.pod.uid)
            if made.spot is not None:
                assert made.spot.groups.remove_pod(box.pod.uid)


async def test_version_names_the_runtime(bench: Bench) -> None:
    name, version = await bench.runtime.version()
    assert name in ("podman", "fake")
    assert version


async def test_sandbox_is_made_once(bench: Bench) -> None:
    box = await bench.pod()
    again = await bench.runtime.ensure_sandbox(SandboxSpec(pod=box.pod, hostname="web"))
    assert again == box
    assert box in await bench.runtime.sandboxes()
    await bench.runtime.remove_sandbox(box.pod.uid)
    await bench.runtime.remove_sandbox(box.pod.uid)
    assert box not in await bench.runtime.sandboxes()


async def test_host_network_pins_nothing(bench: Bench) -> None:
    box = await bench.pod(host_network=True)
    assert (box.net, box.uts) == ("", "")
    assert box.ipc


async def test_life_of_a_container(bench: Bench) -> None:
    box = await bench.pod()
    found = await bench.create(box, LOOP, labels={"mine": "yes"})
    info = await bench.info(found)
    assert (info.state, info.pod, info.name, info.attempt, info.hash) == ("created", box.pod, "main", 0, "h1")
    assert (info.image, info.image_id, dict(info.labels)) == ("busybox:test", bench.image, {"mine": "yes"})
    await bench.runtime.start(found)
    info = await bench.info(found)
    assert info.state == "running"
    assert info.pid > 0
    assert info.started_at is not None
    await bench.runtime.start(found)  # idempotent
    assert [one.id for one in await bench.runtime.containers(box.pod.uid)] == [found]
    assert await bench.runtime.containers("other") == []
    await bench.runtime.stop(found, 5)
    info = await bench.info(found)
    assert info.state == "exited"
    assert info.finished_at is not None
    await bench.runtime.stop(found, 5)  # no error
    await bench.runtime.remove(found)
    await bench.runtime.remove(found)
    assert await bench.runtime.inspect(found) is None


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("sleep 0.2; exit 7", 7)])
async def test_exit_is_told_with_its_code(bench: Bench, script: str, code: int) -> None:
    box = await bench.pod()
    found = await bench.start(box, ["sh", "-c", script])
    info = await bench.wait_ended(found)
    assert (info.exit_code, info.oom_killed, info.message) == (code, False, "")


@pytest.mark.parametrize("bench", [pytest.param("podman", marks=needs("root", "podman", "busybox"))], indirect=True)
async def test_those_ended_before_are_told_too(bench: Bench) -> None:
    box = await bench.pod()
    found = await bench.start(box, ["true"])
    await bench.wait_ended(found)
    told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    bench.runtime.on_exit(lambda uid, container_id: told.put_nowait((uid, container_id)))
    async with asyncio.timeout(5):
        assert await told.get() == (box.pod.uid, found)


@pytest.mark.parametrize("program", ["nosuch-program", "/nosuch/program"])
async def test_a_missing_program_is_a_failed_start(bench: Bench, program: str) -> None:
    box = await bench.pod()
    found = await bench.create(box, [program])
    with pytest.raises(RuntimeFailure, match=program) as caught:
        await bench.runtime.start(found)
    assert caught.value.reason == "RunContainerError"
    info = await bench.info(found)
    assert (info.state, info.exit_code) == ("exited", 128)
    assert program in info.message


async def test_an_unknown_image_is_a_failed_create(bench: Bench) -> None:
    box = await bench.pod()
    bench.image = "sha256:" + "0" * 64
    with pytest.raises(RuntimeFailure) as caught:
        await bench.create(box, ["true"])
    assert caught.value.reason == "CreateContainerError"


async def test_stop_kills_after_the_grace(bench: Bench) -> None:
    if isinstance(bench.runtime, FakeRuntime):
        bench.runtime.ignores_term.add("main")
    box = await bench.pod()
    found = await bench.start(box, ["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"])
    await bench.runtime.stop(found, 0.3)
    assert (await bench.info(found)).exit_code == 137


async def test_run_command(bench: Bench) -> None:
    box = await bench.pod()
    found = await bench.start(box, LOOP)
    assert await bench.runtime.run_command(found, ["true"], timeout=10) == (0, b"")
    assert await bench.runtime.run_command(found, ["sh", "-c", "echo no; exit 4"], timeout=10) == (4, b"no\n")
    with pytest.raises(TimeoutError):
        await bench.runtime.run_command(found, ["sleep", "30"], timeout=0.3)
    await bench.runtime.stop(found, 1)
    with pytest.raises(RuntimeFailure):
        await bench.runtime.run_command(found, ["true"], timeout=1)


async def test_exec_speaks_both_ways(bench: Bench) -> None:
    box = await bench.pod()
    found = await bench.start(box, LOOP)
    process = await bench.runtime.exec(found, ["cat"], tty=False, stdin=True, stdout=True, stderr=True)
    await process.write(b"hello")
    async with asyncio.timeout(10):
        assert await process.stdout.read(100) == b"hello"
        await process.close_stdin()
        assert await process.stdout.read() == b""
        assert await process.stderr.read() == b""
        assert await process.wait() == 0
    await process.close()


async def test_exec_tells_the_exit_code(bench: Bench) -> None:
    box = await bench.pod()
    found = await bench.start(box, LOOP)
    process = await bench.runtime.exec(found, ["sh", "-c", "echo out; exit 5"], tty=False, stdin=False, stdout=True, stderr=True)
    async with asyncio.timeout(10):
        assert await process.stdout.read() == b"out\n"
        assert await process.wait() == 5
    await process.close()


async def test_logs_are_cri_lines(bench: Bench) -> None:
    box = await bench.pod()
    found = await bench.start(box, ["sh", "-c", "echo hello"])
    info = await bench.wait_ended(found)
    stamp, stream, tag, text = info.log_path.read_text().rstrip("\n").split(" ", 3)
    assert (stream, tag, text) == ("stdout", "F", "hello")
    assert stamp.endswith("+00:00")


async def test_images(bench: Bench) -> None:
    for ref in (REF, "docker.io/library/busybox:test", "library/busybox:test", bench.image):
        found = await bench.runtime.image(ref)
        assert found is not None, ref
        assert found.id == bench.image
    assert found.tags == ("docker.io/library/busybox:test",)
    assert (tuple(found.command), tuple(found.env), found.user) == (("sh",), ("PATH=/bin",), "")
    assert await bench.runtime.image("nosuch:latest") is None
    assert [one.id for one in await bench.runtime.images()] == [bench.image]
    with pytest.raises(RuntimeFailure) as caught:
        await bench.runtime.load_image(Path("/nosuch.tar"))
    assert caught.value.reason == "ImageLoadError"


async def test_an_image_in_use_is_not_removed(bench: Bench) -> None:
    box = await bench.pod()
    await bench.start(box, LOOP)
    with pytest.raises(RuntimeFailure) as caught:
        await bench.runtime.remove_image(bench.image)
    assert caught.value.reason == "ImageInUse"


async def test_stats_of_a_running_container_only(bench: Bench) -> None:
    box = await bench.pod()
    found = await bench.start(box, LOOP)
    stats = await bench.runtime.stats(found)
    assert stats is not None
    assert stats.cpu_nanoseconds > 0
    assert stats.memory_working_set <= stats.memory_usage
    await bench.runtime.stop(found, 1)
    assert await bench.runtime.stats(found) is None


async def test_limits_change_in_place(bench: Bench) -> None:
    box = await bench.pod()
    found = await bench.start(box, LOOP, resources=Resources(memory_limit=32 << 20))
    await bench.runtime.update(found, Resources(memory_limit=48 << 20, cpu_shares=512))
    if bench.spot is not None and not bench.spot.hierarchy.v2:
        group = bench.spot.groups.path(box.pod.uid, "Burstable") + f"/libpod-{found}"
        assert bench.spot.hierarchy.file("memory", group, "memory.limit_in_bytes").read_text() == f"{48 << 20}\n"


real_only = pytest.mark.parametrize("bench", [pytest.param("podman", marks=needs("root", "podman", "busybox"))], indirect=True)


@real_only
async def test_containers_of_a_pod_share_network_ipc_and_name(bench: Bench) -> None:
    box = await bench.pod(hostname="box")
    one = await bench.start(box, ["sh", "-c", "hostname; echo mine > /dev/shm/x; while :; do echo hi | nc -l -p 4000; done"], name="one")
    two = await bench.start(box, LOOP, name="two")
    script = "until nc 127.0.0.1 4000; do sleep 0.05; done; hostname; cat /dev/shm/x; echo $HOSTNAME; cat /etc/hostname"
    code, out = await bench.runtime.run_command(two, ["sh", "-c", script], timeout=10)
    assert (code, out) == (0, b"hi\nbox\nmine\nbox\nbox\n")
    assert (await bench.info(one)).state == "running"


@real_only
async def test_shared_process_namespace(bench: Bench) -> None:
    box = await bench.pod(shared_pid=True)
    await bench.start(box, LOOP, name="one")
    two = await bench.start(box, ["sleep", "1000"], name="two")
    _, out = await bench.runtime.run_command(two, ["ps"], timeout=10)
    assert b"trap" in out
    await bench.runtime.stop(two, 0)
    assert (await bench.info(two)).exit_code == 137


@real_only
async def test_out_of_memory_is_told(bench: Bench) -> None:
    box = await bench.pod()
    script = "x=a; while :; do x=$x$x; done"
    found = await bench.start(box, ["sh", "-c", script], resources=Resources(memory_limit=16 << 20))
    info = await bench.wait_ended(found)
    assert (info.exit_code, info.oom_killed) == (137, True)


@real_only
async def test_a_new_runtime_adopts_what_runs(bench: Bench) -> None:
    assert bench.spot is not None
    box = await bench.pod()
    runs = await bench.start(box, LOOP, name="runs")
    over = await bench.start(box, ["sh", "-c", "exit 9"], name="over")
    await bench.wait_ended(over)
    broken = await bench.create(box, ["nosuch"], name="broken")
    with pytest.raises(RuntimeFailure):
        await bench.runtime.start(broken)
    before = await bench.info(runs)
    async with running(bench.spot.runtime()) as second:
        told: asyncio.Queue[str] = asyncio.Queue()
        second.on_exit(lambda uid, container_id: told.put_nowait(container_id))
        found = {one.id: one for one in await second.containers(box.pod.uid)}
        assert (found[runs].state, found[runs].pid, found[runs].attempt) == ("running", before.pid, 0)
        assert (found[over].state, found[over].exit_code) == ("exited", 9)
        assert (found[broken].state, found[broken].exit_code) == ("exited", 128)
        assert "nosuch" in found[broken].message
        assert box in await second.sandboxes()
        os.kill(before.pid, 9)
        async with asyncio.timeout(10):
            while await told.get() != runs:
                pass


@real_only
async def test_the_service_is_replaced_when_it_dies(bench: Bench) -> None:
    assert bench.spot is not None
    box = await bench.pod()
    found = await bench.start(box, LOOP)
    pid = bench.runtime._service.pid
    os.kill(pid, 9)
    async with asyncio.timeout(20):
        await until(lambda: bench.runtime._service.pid != pid)
        while not await _answers(bench.runtime):
            await bench.info(found)
    assert (await bench.info(found)).state == "running"
    assert await bench.runtime.run_command(found, ["true"], timeout=10) == (0, b"")


async def _answers(runtime: Runtime) -> bool:
    with contextlib.suppress(RuntimeFailure):
        await runtime.version()
        return True
    await asyncio.sleep(0.02)
    return False


@real_only
async def test_tty_and_resize(bench: Bench) -> None:
    box = await bench.pod()
    found = await bench.start(box, LOOP)
    process = await bench.runtime.exec(found, ["sh", "-c", "tty; read x; stty size"], tty=True, stdin=True, stdout=True, stderr=False)
    await process.resize(101, 33)
    await process.write(b"\n")
    async with asyncio.timeout(10):
        out = b""
        while piece := await process.stdout.read(1000):
            out += piece
        assert b"33 101" in out
        assert await process.wait() == 0
    await process.close()


@real_only
@pytest.mark.parametrize("tty", [False, True])
async def test_exec_of_a_missing_program(bench: Bench, tty: bool) -> None:
    box = await bench.pod()
    found = await bench.start(box, LOOP)
    process = await bench.runtime.exec(found, ["nosuch"], tty=tty, stdin=False, stdout=True, stderr=not tty)
    async with asyncio.timeout(10):
        assert (await process.stdout.read(), await process.stderr.read()) == (b"", b"")
        with pytest.raises(RuntimeFailure, match=r'exec: "nosuch": executable file not found in \$PATH'):
            await process.wait()
    await process.close()
    with pytest.raises(RuntimeFailure, match="failed to exec in container"):
        await bench.runtime.run_command(found, ["nosuch"], timeout=10)


@real_only
async def test_attach_to_a_waiting_container(bench: Bench) -> None:
    box = await bench.pod()
    found = await bench.start(box, ["sh", "-c", "read x; echo got $x; exit 4"], stdin=True, stdin_once=True)
    process = await bench.runtime.attach(found, stdin=True, stdout=True, stderr=True)
    await process.write(b"this\n")
    async with asyncio.timeout(10):
        assert await process.stdout.read(100) == b"got this\n"
        assert await process.wait() == 4
    await process.close()


@real_only
async def test_the_log_is_reopened_after_a_rename(bench: Bench) -> None:
    box = await bench.pod()
    found = await bench.start(box, ["sh", "-c", "while :; do echo tick; sleep 0.02; done"])
    path = (await bench.info(found)).log_path
    aside = path.with_name("0.log.old")
    path.rename(aside)
    await bench.runtime.reopen_log(found)
    async with asyncio.timeout(10):
        await until(lambda: path.exists() and b"tick" in path.read_bytes())


@real_only
async def test_sysctls_belong_to_the_pod(bench: Bench) -> None:
    box = await bench.pod(sysctls={"net.ipv4.ip_local_port_range": "2000 3000", "kernel.shm_rmid_forced": "1"})
    found = await bench.start(box, LOOP)
    read = "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_unprivileged_port_start"
    assert await bench.runtime.run_command(found, ["sh", "-c", read], timeout=10) == (0, b"2000\t3000\n1\n0\n")
    with pytest.raises(RuntimeFailure, match="net.no.such"):
        await bench.pod(name="bad", sysctls={"net.no.such": "1"})
    assert [one.pod.name for one in await bench.runtime.sandboxes()] == ["web"]


@real_only
async def test_a_container_whose_conmon_was_killed(bench: Bench) -> None:
    assert bench.spot is not None
    box = await bench.pod()
    found = await bench.start(box, LOOP)
    group = bench.spot.groups.path(box.pod.uid, "Burstable")
    for pid in bench.spot.hierarchy.processes(f"{group}/conmon"):
        os.kill(pid, 9)
    assert (await bench.info(found)).state == "running"
    os.kill((await bench.info(found)).pid, 9)
    assert (await bench.wait_ended(found)).exit_code == 137
    await bench.runtime.remove(found)
    assert await bench.runtime.containers(box.pod.uid) == []


@real_only
async def test_environment_is_what_was_asked_for(bench: Bench) -> None:
    box = await bench.pod()
    security = Security(user=1000, seccomp="unconfined", no_new_privileges=True, capabilities_drop=["ALL"], groups=[3000])
    found = await bench.start(box, LOOP, env=[("A", "b"), ("HOME", "/x")], security=security, working_dir="/tmp")
    _, out = await bench.runtime.run_command(found, ["sh", "-c", "env; pwd; id; grep -E 'CapEff|NoNewPrivs' /proc/self/status"], timeout=10)
    lines = set(out.decode().splitlines()) - {"SHLVL=1", "PWD=/tmp"}
    assert lines == {
        "A=b", "HOME=/x", "PATH=/bin", "HOSTNAME=web", "/tmp", "uid=1000(app) gid=1001(app) groups=1001(app),2000(extra),3000",
        "CapEff:\t0000000000000000", "NoNewPrivs:\t1",
    }  # fmt: skip


@real_only
async def test_pull(bench: Bench) -> None:
    assert bench.spot is not None
    async with registry() as shop:
        shop.add("team/tool", "v1", images.archive(bench.spot.base / "tool.tar", command=("tool",)))
        shop.credentials = "user:secret"
        async with running(bench.spot.runtime()) as runtime:
            ref = f"{shop.address}/team/tool:v1"
            with pytest.raises(RuntimeFailure, match=r"failed to pull image .*unauthorized") as caught:
                await runtime.pull(ref)
            assert caught.value.reason == "ErrImagePull"
            found = await runtime.pull(ref, username="user", password="secret")
            assert found.tags == (ref,)
            assert tuple(found.command) == ("tool",)
            assert await runtime.image(found.digests[0]) is not None
            with pytest.raises(RuntimeFailure, match="manifest unknown"):
                await runtime.pull(f"{shop.address}/team/tool:v2", username="user", password="secret")
            assert {one.id for one in await runtime.images()} == {found.id, bench.image}
            await runtime.remove_image(found.id)
            await runtime.remove_image(found.id)
            assert await runtime.image(ref) is None


@real_only
async def test_oci_archives_are_loaded_too(bench: Bench) -> None:
    assert bench.spot is not None
    path = images.oci_archive(bench.spot.base / "oci.tar")
    assert await bench.runtime.load_image(path) == ["docker.io/library/busybox:oci"]
    found = await bench.runtime.image("busybox:oci")
    assert found is not None
    await bench.runtime.remove_image(found.id)


@real_only
async def test_a_hanging_service_is_replaced(bench: Bench) -> None:
    """Stopped, not dead: it accepts connections and never answers."""
    assert bench.spot is not None
    box = await bench.pod()
    found = await bench.start(box, LOOP)
    async with running(bench.spot.runtime(patience=0.2)) as runtime:
        pid = runtime._service.pid
        os.kill(pid, signal.SIGSTOP)
        async with asyncio.timeout(20):
            with pytest.raises(RuntimeDown):
                await runtime.version()
            await until(lambda: runtime._service.pid != pid)
            while not await _answers(runtime):
                pass
        adopted = await runtime.inspect(found)
        assert adopted is not None
        assert (adopted.state, adopted.pid) == ("running", (await bench.info(found)).pid)
        assert await runtime.run_command(found, ["true"], timeout=10) == (0, b"")


@pytest.mark.parametrize("needed", [pytest.param("", marks=needs("root", "podman", "busybox"))])
async def test_after_a_reboot_names_are_free_and_images_stay(needed: str) -> None:
    """All processes, cgroups, mounts and what lay on tmpfs are gone; the disk is as it was."""
    with place() as spot:
        archive = images.archive(spot.base / "busybox.tar")
        async with running(spot.runtime()) as runtime:
            await runtime.load_image(archive)
            image = await runtime.image(REF)
            assert image is not None
            box = await make_pod(runtime, "web", groups=spot.groups)
            spec = container(box, image.id, LOOP, log_dir=spot.config.log_dir, groups=spot.groups)
            await runtime.start(await runtime.create(spec, box))
        await asyncio.to_thread(spot.groups.remove_all)
        await Service(spot.config, spot.hierarchy).end()
        unmount_below(spot.base)
        (spot.config.home / "boot_id").write_text("an earlier boot")
        async with running(spot.runtime()) as runtime:
            assert list(await runtime.containers()) == []
            assert list(await runtime.sandboxes()) == []
            assert [one.id for one in await runtime.images()] == [image.id]
            again = await runtime.ensure_sandbox(SandboxSpec(pod=box.pod, hostname="web"))
            found = await runtime.create(spec, again)
            await runtime.start(found)
            info = await runtime.inspect(found)
            assert info is not None
            assert info.state == "running"
