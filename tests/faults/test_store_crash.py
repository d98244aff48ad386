"""Kill the store at every step of a commit, again and again, and hold what it says afterwards against what it said before.

No acknowledged write lost, none undone, no revision used twice, no event skipped, doubled or reordered. Killing a process shows what the
program orders wrongly; that the disk keeps what was synced is the business of tests/vm, which cuts the power.
"""

import asyncio
import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from edgekube.store.sqlite import open_store

POINTS = ("queued", "begin", "written", "before-sync", "committed", "published")


@dataclass
class History:
    """Everything a writer told before it died."""

    start: int = 0
    acknowledged: dict = field(default_factory=dict)  # key -> (verb, revision, digest), the last one
    revisions: set = field(default_factory=set)
    events: list = field(default_factory=list)  # (revision, type, key) of bucket pods

    def read(self, text: str) -> None:
        for line in text.splitlines():
            words = line.split()
            if words[0] == "S":
                self.start = int(words[1])
            elif words[0] in "AM":
                revision = int(words[3])
                assert revision not in self.revisions, f"revision {revision} was used twice"
                self.revisions.add(revision)
                if words[0] == "A":
                    known = self.acknowledged.get(words[2])
                    assert known is None or known[1] < revision, "acknowledged out of order"
                    self.acknowledged[words[2]] = (words[1], revision, words[4])
            elif words[0] == "E" and words[3].startswith("pods/"):
                self.events.append((int(words[1]), words[2], words[3]))


def crash(path, seed: int, point: str, passes: int) -> str:
    """One life of the writer, ended at the `passes`th pass of a step."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.store_writer", str(path), str(seed)],
        env=os.environ | {"EDGEKUBE_FAILPOINTS": f"store.commit.{point}=kill:{passes}"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    return done.stdout


async def check(path, history: History) -> None:
    """Open the store as the next start would and compare."""
    store = await open_store(path, history=100)
    try:
        assert store.revision >= max(history.revisions, default=0)
        records = {record.key: record for record in store.range("pods/")[0]}
        for key, (verb, revision, digest) in history.acknowledged.items():
            record = records.get(key)
            if record is None or record.revision == revision:
                found = None if record is None else hashlib.sha256(record.value).hexdigest()[:12]
                later = any(e.record.key == key and e.revision > revision for e in store.since("pods", store.oldest("pods")))
                assert (found == digest) if verb == "put" and not (record is None and later) else record is None
            else:
                assert record.revision > revision, f"{key} went back to {record.revision} from {revision}"
        stored = [(e.revision, e.type.value, e.record.key) for e in store.since("pods", store.oldest("pods"))]
        assert [e[0] for e in stored] == sorted({e[0] for e in stored}), "events doubled or out of order"
        heard = [event for event in history.events if event[0] > store.oldest("pods")]
        assert stored[: len(heard)] == heard, "events skipped or changed"
    finally:
        await store.close()


@pytest.mark.parametrize("point", POINTS)
def test_killed_at(point, tmp_path):
    path = tmp_path / "state.db"
    history = History()
    for life, passes in enumerate((1, 2, 7, 30, 90)):
        history.read(crash(path, life, point, passes))
        asyncio.run(check(path, history))
    assert history.acknowledged or point in ("queued", "begin", "written", "before-sync")


async def test_revisions_that_only_memory_knew_are_not_used_again(tmp_path):
    """Ephemeral revisions vanish with the process; the ceiling on the disk keeps them from coming back."""
    program = (
        "import asyncio, os, sys\nfrom pathlib import Path\nfrom edgekube.store.sqlite import open_store\n"
        "async def main():\n"
        "    s = await open_store(Path(sys.argv[1]))\n"
        "    for n in range(30):\n"
        "        r = await s.create(f'leases/{n}', lambda rev: (b'x', None), durable=False)\n"
        "    print(r.revision, flush=True)\n    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    last = 0
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "state.db")], capture_output=True, text=True, check=False)
        revision = int(done.stdout)
        assert revision - 29 > last
        last = revision
