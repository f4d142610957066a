"""A process of its own, for tests: `python -m tests.storage.worker <role> <database url>`."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time

from batchbell.core.errors import StoreInUse
from batchbell.core.model import new_id
from batchbell.storage import projects, queue
from batchbell.storage.opening import open_store
from tests.masterkeys import master_key


def say(words: object) -> None:
    sys.stdout.write(f"{json.dumps(words)}\n")
    sys.stdout.flush()


async def claim(url: str) -> None:
    """Claim until nothing is left, after a word from the parent, and say what was got."""
    store = await open_store(url, migrate=False, master_key=master_key(url))
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    mine: list[str] = []
    while True:
        taken = await store.write(
            queue.claim_due,
            rooms={},
            room=3,
            limit=5,
            now=2_000_000_000.0,
            lease_seconds=3600.0,
            token=new_id("lease", now=time.time(), rand=secrets.token_bytes(10)),
        )
        if not taken.deliveries:
            break
        mine += [one.id for one in taken.deliveries]
    await store.close()
    say(mine)


async def write_for_ever(url: str) -> None:
    """Make projects without end, and say the id of each that was committed."""
    store = await open_store(url)
    number = 0
    while True:
        ids = [f"project_{n}" for n in range(number, number + 5)]
        await asyncio.gather(
            *(store.write(projects.ensure_project, id=id, secret="x" * 500, now=0.0) for id in ids)
        )
        number += 5
        say(ids)


async def enter(url: str) -> None:
    """Say whether the database may be opened."""
    try:
        store = await open_store(url)
    except StoreInUse as error:
        say(str(error))
        return
    await store.close()
    say("opened")


if __name__ == "__main__":
    role = {"claim": claim, "write": write_for_ever, "enter": enter}[sys.argv[1]]
    asyncio.run(role(sys.argv[2]))
