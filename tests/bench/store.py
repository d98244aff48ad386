"""The store beside the disk's own fdatasync: writes per second, latency, bytes written, memory per object, time to open.

Values are 5.8 KB and compress about as a pod does (to a third).
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from edgekube.store.sqlite import open_store

BODY = os.urandom(1500) + b"the quick brown fox " * 215


def row(name: str, value: object, aim: str = "") -> None:
    print(f"{name:<58}{value!s:>18}   {aim}", flush=True)


def floor(folder: Path) -> float:
    """Median microseconds of a 4 KiB overwrite and fdatasync."""
    descriptor = os.open(folder / "floor", os.O_CREAT | os.O_WRONLY)
    os.pwrite(descriptor, b"x" * 8192, 0)
    os.fsync(descriptor)
    taken = []
    for _ in range(1000):
        began = time.perf_counter()
        os.pwrite(descriptor, b"y" * 4096, 0)
        os.fdatasync(descriptor)
        taken.append(time.perf_counter() - began)
    os.close(descriptor)
    return statistics.median(taken) * 1e6


def written() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def writers(folder: Path, count: int, each: int) -> tuple[float, float, float, float]:
    """Writes per second, p50 and p99 in microseconds, bytes per write."""
    store = await open_store(folder / f"w{count}" / "state.db")
    taken: list[float] = []

    async def one(number: int) -> None:
        record = await store.create(f"pods/{number}", lambda revision: (BODY, None))
        for _ in range(each):
            began = time.perf_counter()
            record = await store.update(record.key, record.revision, lambda revision: (BODY, None))
            taken.append(time.perf_counter() - began)

    before, began = written(), time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(count)))
    spent = time.perf_counter() - began
    size = (written() - before) / (count * (each + 1))
    await store.close()
    taken.sort()
    return count * each / spent, taken[len(taken) // 2] * 1e6, taken[len(taken) * 99 // 100] * 1e6, size


async def many(folder: Path) -> tuple[float, float]:
    """Bytes of memory per object with 10,000 of them, and seconds to open that database."""
    store = await open_store(folder / "many" / "state.db")
    before = resident()

    async def one(number: int) -> None:
        await store.create(f"pods/{number:05}", lambda revision: (bytes(bytearray(BODY)), None))

    for start in range(0, 10_000, 500):
        await asyncio.gather(*(one(number) for number in range(start, start + 500)))
    each = (resident() - before) / 10_000
    await store.close()
    began = time.perf_counter()
    store = await open_store(folder / "many" / "state.db")
    spent = time.perf_counter() - began
    await store.close()
    return each, spent


async def measure() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("EDGEKUBE_BENCH_DIR", "/var/tmp")) as name:
        folder = Path(name)
        lowest = floor(folder)
        row("floor: 4 KiB pwrite + fdatasync, p50 (us)", f"{lowest:.0f}")
        for count, each in ((1, 3000), (10, 1500), (100, 300)):
            rate, middle, worst, size = await writers(folder, count, each)
            aim = {1: f"p50 <= 2x floor; here {middle / lowest:.1f}x", 10: ">= 15,000/s, <= 8 KB a write"}.get(count, "")
            row(f"{count} writers: writes/s | p50 us | p99 us | KB/write", f"{rate:,.0f} | {middle:.0f} | {worst:.0f} | {size / 1e3:.1f}", aim)
        each, spent = await many(folder)
        row("memory per stored object of 5.8 KB (bytes)", f"{each:,.0f}")
        row("open a database of 10,000 objects (s)", f"{spent:.3f}", "aim <= 0.35")


def main() -> None:
    sys.setswitchinterval(0.0005)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure())
