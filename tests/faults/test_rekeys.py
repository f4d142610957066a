"""SIGKILL while master keys are made and changed: everything stays readable."""

from __future__ import annotations

import asyncio
import base64
import signal
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select
from tests import starting
from tests.faults.conftest import START_SECONDS

from batchbell import failpoints
from batchbell.storage.masterkeys import file_beside, read_file
from batchbell.storage.opening import open_store, parse_url
from batchbell.storage.rekey import STEP, ids_in_use
from batchbell.storage.schema import projects as table
from batchbell.storage.sealing import KEY_BYTES, key_id

OLD, NEW = b"o" * KEY_BYTES, b"n" * KEY_BYTES
PROJECTS = 2 * STEP + 1
PROGRAM = "from batchbell.cli import main; main()"


def setting(url: str, *keys: bytes) -> str | None:
    """BATCHBELL_MASTER_KEY on PostgreSQL; on SQLite the key file is what is tested."""
    if url.startswith("sqlite"):
        return None
    return ",".join(base64.b64encode(key).decode() for key in keys)


async def run(url: str, *words: str, keys: str | None, log: Path, failpoint: str = "") -> int:
    """One command; its exit code."""
    process = await starting.start(
        PROGRAM,
        arguments=words,
        environment={
            **starting.inherited(),
            "DATABASE_URL": url,
            "BATCHBELL_MASTER_KEY": keys or "",
            "BATCHBELL_FAILPOINT": failpoint,
        },
        log=log,
    )
    async with asyncio.timeout(START_SECONDS):
        return await process.wait()


def secret(number: int) -> str:
    return f"whsec_{number}"


def fill(connection: Connection) -> None:
    rows = [
        {"id": f"p{n}", "name": f"p{n}", "webhook_secret": secret(n), "created_at": 1.0}
        for n in range(PROJECTS)
    ]
    connection.execute(insert(table), rows)


async def read_all(url: str, *keys: bytes) -> set[str]:
    """Read every secret, as a process with these keys does; the ids of the keys in use."""
    store = await open_store(url, master_key=setting(url, *keys))
    try:
        found = await store.read(lambda c: set(c.execute(select(table.c.webhook_secret)).scalars()))
        assert {secret(n) for n in range(PROJECTS)} <= found
        return await store.read(ids_in_use)
    finally:
        await store.close()


FILE_ONLY = [
    f"{failpoints.BEFORE_KEY_FILE}:1",
    f"{failpoints.AFTER_KEY_FILE}:1",
    f"{failpoints.BEFORE_KEY_FILE}:2",
    f"{failpoints.AFTER_KEY_FILE}:2",
]


@pytest.mark.parametrize(
    "failpoint", [*FILE_ONLY, *(f"{failpoints.IN_SEALING}:{n}" for n in (1, 2, 3))]
)
async def test_killed_inside_a_rekey(database_url: str, failpoint: str, tmp_path: Path) -> None:
    if failpoint in FILE_ONLY and database_url.startswith("postgresql"):
        pytest.skip("PostgreSQL has no key file")
    store = await open_store(database_url, master_key=setting(database_url, OLD))
    await store.write(fill)
    (before,) = await store.read(ids_in_use)
    await store.close()

    both, log = setting(database_url, NEW, OLD), tmp_path / "log"
    code = await run(database_url, "keys", "rekey", keys=both, log=log, failpoint=failpoint)
    assert code == -signal.SIGKILL
    await read_all(database_url, NEW, OLD)

    assert await run(database_url, "keys", "rekey", keys=both, log=log) == 0
    (after,) = await read_all(database_url, NEW)
    assert after != before
    if database_url.startswith("sqlite"):
        kept = read_file(file_beside(Path(str(parse_url(database_url).database))))
        assert [key_id(key) for key in kept] == [after]


@pytest.mark.parametrize("failpoint", [failpoints.BEFORE_KEY_FILE, failpoints.AFTER_KEY_FILE])
async def test_killed_as_the_key_file_is_made(
    sqlite_url: str, failpoint: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    code = await run(sqlite_url, "secret", keys=None, log=log, failpoint=failpoint)
    assert code == -signal.SIGKILL
    assert await run(sqlite_url, "secret", keys=None, log=log) == 0
    # There is no provider's key.
    assert await run(sqlite_url, "doctor", "--json", keys=None, log=log) == 1
    file = file_beside(Path(str(parse_url(sqlite_url).database)))
    assert len(read_file(file)) == 1
    assert not file.with_name(f"{file.name}.new").exists()
