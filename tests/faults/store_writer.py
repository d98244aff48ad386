"""Writes to a store until killed and tells on stdout what happened: run by test_store_crash in a process of its own.

Lines: `A verb key revision digest` for an acknowledged durable write, `M ...` for an ephemeral one, `E revision type key` for a published event.
"""

import asyncio
import hashlib
import os
import random
import sys
from pathlib import Path

from edgekube.store.sqlite import open_store


def tell(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


async def writer(store, number: int, seed: int) -> None:
    chance = random.Random(seed * 100 + number)
    while True:
        durable = chance.random() < 0.8
        key = f"{'pods' if durable else 'leases'}/{number}-{chance.randrange(4)}"
        body = chance.randbytes(chance.randrange(20, 2000))
        current = store.latest(key)
        if current is not None and chance.random() < 0.2:
            record = await store.delete(key, current.revision, lambda revision, body=body: (body, None))
            tell("A" if durable else "M", "delete", key, record.revision, digest(record.value))
        elif current is None:
            record = await store.create(key, lambda revision, body=body: (body, None), durable=durable)
            tell("A" if durable else "M", "put", key, record.revision, digest(record.value))
        else:
            record = await store.update(key, current.revision, lambda revision, body=body: (body, None), durable=durable)
            tell("A" if durable else "M", "put", key, record.revision, digest(record.value))


async def main(path: str, seed: int) -> None:
    store = await open_store(Path(path), history=100)
    for bucket in ("pods", "leases"):
        store.subscribe(bucket, lambda events: [tell("E", e.revision, e.type.value, e.record.key) for e in events])
    tell("S", store.revision)
    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(writer(store, number, seed))


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
