"""Make the golden files of this version's formats: `python -m tests.unit.store.golden FOLDER`. Run it with the released version, once,
when a format is about to change; the files are never made anew. What they hold is `CONTENT`."""

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from edgekube.app.backup import save
from edgekube.app.paths import Paths
from edgekube.config import Settings
from edgekube.lib import archive
from edgekube.store.sqlite import open_store

CONTENT = {
    "configmaps/default/plain": b"short",
    "configmaps/default/deflated": b'{"data": "' + b"long " * 200 + b'"}',
    "pods/default/updated": b"third version",
    "leases/kube-system/ephemeral": b"written at the end only",
}
PASSPHRASE = b"golden"
FILES = {"pki/ca.pem": b"key and certificate", "pki/ca.crt": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "manifests/static/a.yaml": b"a: 1\n"}


def value(data):
    return lambda _: (data, None)


async def fill(store):
    await store.create("configmaps/default/deleted", value(b"gone"))
    for key, data in CONTENT.items():
        await store.create(key, value(data if "updated" not in key else b"first version"), durable="ephemeral" not in key)
    for data in (b"second version", CONTENT["pods/default/updated"]):
        await store.update("pods/default/updated", store.get("pods/default/updated").revision, value(data))
    await store.delete("configmaps/default/deleted", store.get("configmaps/default/deleted").revision, value(b"gone"))


def make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    paths, settings, now = Paths(folder, folder / "run"), Settings(data_dir=folder, node_name="golden"), datetime(2026, 1, 1, tzinfo=UTC)

    async def closed():
        store = await open_store(folder / "closed.db")
        await fill(store)
        for name, passphrase in (("plain", b""), ("sealed", PASSPHRASE)):
            save.write(paths, settings, store.everything(), name=name, now=now, seal=archive.make_seal(passphrase) if passphrase else None)
        await store.close()

    async def killed():
        await fill(await open_store(folder / "killed.db"))
        os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(closed())
    child = os.fork()
    if child == 0:
        asyncio.run(killed())
    os.waitpid(child, 0)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
