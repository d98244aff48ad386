"""One pod with one container, start and stop, beside the floor: what the bare OCI runtime takes for the same container.

The floor is `crun run` (or runc) of `true` and `sleep` from an unpacked root, without podman, conmon, logs or cgroup limits. Needs root, podman.
"""

import asyncio
import json
import os
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from edgekube.kubelet.runtime.cgroups import Limits
from edgekube.kubelet.runtime.podman import PodmanRuntime
from edgekube.kubelet.runtime.protocol import Resources
from tests.kit import images
from tests.kit.runtimes import Place, container, make_pod, place, running

ROUNDS = int(os.environ.get("EDGEKUBE_BENCH_ROUNDS", "20"))


def row(name: str, seconds: list[float], aim: str = "") -> None:
    ordered = sorted(seconds)
    p90 = ordered[int(len(ordered) * 0.9)]
    print(f"{name:<44}{statistics.median(ordered) * 1000:>9.1f} ms{p90 * 1000:>12.1f} ms p90   {aim}", flush=True)


def floor(spot: Place, runtime: str) -> list[float]:
    """The bare runtime: create, start, wait, delete of a container that runs `true`."""
    bundle = spot.base / "bundle"
    root = bundle / "rootfs"
    (root / "bin").mkdir(parents=True)
    (root / "bin/true").write_bytes(images.busybox().read_bytes())
    (root / "bin/true").chmod(0o755)
    subprocess.run([runtime, "spec"], cwd=bundle, check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"args": ["/bin/true"], "terminal": False}
    config["process"]["rlimits"] = []
    (bundle / "config.json").write_text(json.dumps(config))
    script = 'umount /sys/fs/cgroup/unified; exec "$@"'
    prefix = ["unshare", "-m", "--propagation", "slave", "sh", "-c", script, "sh"] if spot.hierarchy.hybrid else []
    taken = []
    for number in range(ROUNDS):
        began = time.monotonic()
        subprocess.run(
            [*prefix, runtime, "run", "--bundle", str(bundle), f"ek-floor-{os.getpid()}-{number}"], check=True, capture_output=True
        )
        taken.append(time.monotonic() - began)
    return taken


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.monotonic()
    await work()
    return time.monotonic() - began


async def pods(spot: Place, runtime: PodmanRuntime) -> None:
    """Each step of a pod's life, one pod at a time."""
    image = await runtime.image("busybox:test")
    assert image is not None
    steps: dict[str, list[float]] = {
        name: [] for name in ("cgroup + sandbox", "create", "start", "whole pod", "probe", "exit seen", "stop", "remove")
    }
    ended: asyncio.Queue[float] = asyncio.Queue()
    runtime.on_exit(lambda uid, container_id: ended.put_nowait(time.monotonic()))
    for number in range(ROUNDS):
        began = time.monotonic()
        box = await make_pod(runtime, f"pod{number}", groups=spot.groups)
        boxed = time.monotonic()
        spec = container(
            box,
            image.id,
            ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 100 & wait; done"],
            log_dir=spot.config.log_dir,
            groups=spot.groups,
            resources=Resources(cpu_shares=102, memory_limit=64 << 20),
        )
        found = await runtime.create(spec, box)
        created = time.monotonic()
        await runtime.start(found)
        started = time.monotonic()
        steps["cgroup + sandbox"].append(boxed - began)
        steps["create"].append(created - boxed)
        steps["start"].append(started - created)
        steps["whole pod"].append(started - began)
        steps["probe"].append(await timed(lambda found=found: runtime.run_command(found, ["true"], timeout=10)))
        began = time.monotonic()
        await runtime.stop(found, 10)
        steps["stop"].append(time.monotonic() - began)
        steps["exit seen"].append(await ended.get() - began)
        steps["remove"].append(await timed(lambda found=found: runtime.remove(found)))
        await runtime.remove_sandbox(box.pod.uid)
        await asyncio.to_thread(spot.groups.remove_pod, box.pod.uid)
    for name, seconds in steps.items():
        row(name, seconds, "aim <= 100 ms" if name == "whole pod" else "")


async def many(spot: Place, runtime: PodmanRuntime, count: int = 50) -> None:
    """Pods a second when many are asked for at once."""
    image = await runtime.image("busybox:test")
    assert image is not None

    async def one(number: int) -> None:
        box = await make_pod(runtime, f"many{number}", groups=spot.groups)
        found = await runtime.create(container(box, image.id, ["sleep", "1000"], log_dir=spot.config.log_dir, groups=spot.groups), box)
        await runtime.start(found)

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(one(number))
    seconds = time.monotonic() - began
    print(f"{f'{count} pods at once':<44}{count / seconds:>9.1f} pods/s                  aim >= 8", flush=True)
    asked = [await timed(runtime.containers) for _ in range(20)]
    row(f"containers() of {count}", asked)
    async with asyncio.TaskGroup() as group:
        for info in await runtime.containers():
            group.create_task(runtime.remove(info.id))


async def bench(spot: Place) -> None:
    images.archive(spot.base / "busybox.tar")
    began = time.monotonic()
    async with running(spot.runtime()) as runtime:
        row("podman service started", [time.monotonic() - began])
        row("image of 2 MB loaded", [await timed(lambda: runtime.load_image(spot.base / "busybox.tar"))])
        spot.groups.ensure_root(Limits())
        await pods(spot, runtime)
        await many(spot, runtime)
    began = time.monotonic()
    async with running(spot.runtime()):
        row("adopted by a new edgekube", [time.monotonic() - began])


def main() -> None:
    with place() as spot:
        for runtime in ("crun", "runc"):
            if any(Path(folder, runtime).exists() for folder in ("/usr/bin", "/usr/sbin", "/usr/local/bin")):
                row(f"floor: {runtime} run true", floor(spot, runtime))
                break
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(bench(spot))
