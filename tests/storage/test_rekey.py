"""Secrets on disk are sealed, whatever was there before, and never lost to a missing key."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from itertools import count
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import Connection, text, update

from batchbell.core.errors import SecretUnreadable, SettingsError
from batchbell.core.model import DEFAULT_PROJECT, EventType
from batchbell.storage import endpoints, masterkeys, opening, projects, rekey
from batchbell.storage.endpoints import endpoints_by_id
from batchbell.storage.engine import Store
from batchbell.storage.opening import open_store, parse_url
from batchbell.storage.schema import accounts
from batchbell.storage.sealing import HEAD, KEY_BYTES, head_of, key_id
from tests.conftest import MASTER_KEY, SECRET, beside_the_loop, master_key
from tests.storage.test_migrations import bare

HEADER = "Bearer hard-to-guess"
OWN = "whsec_b3du" * 4
CREDENTIALS = '{"api_key": "sk-of-nobody"}'
SECRETS = (SECRET, HEADER, OWN, "sk-of-nobody")
OTHER_KEY = base64.b64encode(b"o" * KEY_BYTES).decode()
QUERIES = [
    "SELECT webhook_secret FROM projects",
    "SELECT secrets FROM endpoints WHERE secrets IS NOT NULL",
    "SELECT headers FROM endpoints WHERE headers IS NOT NULL",
    "SELECT credentials FROM accounts WHERE credentials IS NOT NULL",
]
PLAIN = [
    "INSERT INTO projects (id, name, webhook_secret, created_at)"
    f" VALUES ('default', 'default', '{SECRET}', 1)",
    "INSERT INTO accounts (id, project_id, name, provider, base_url, state, failures, due_at,"
    " not_before, created_at) VALUES ('a', 'default', 'a', 'openai', 'u', 'active', 0, 1, 1, 1)",
]
ENDPOINT = (
    "INSERT INTO endpoints (id, project_id, url, state, failures, created_at, managed, name,"
    " event_types, secrets, headers) VALUES (:id, 'default', 'https://a.example', 'active', 0, 1,"
    " true, 'a', '[]', :secrets, :headers)"
)


def raw(url: str) -> list[str]:
    """Every secret as the database has it, read by a connection that knows of no seal."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(str(parse_url(url).database))) as connection:
            return [row[0] for query in QUERIES for row in connection.execute(query)]

    async def fetch() -> list[str]:
        connection = await asyncpg.connect(url)
        try:
            return [row[0] for query in QUERIES for row in await connection.fetch(query)]
        finally:
            await connection.close()

    return beside_the_loop(fetch)


def on_disk(url: str) -> bytes:
    """All bytes of a SQLite database, its log included."""
    path = Path(str(parse_url(url).database))
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


@asynccontextmanager
async def opened(url: str, *, key: str | None = None, migrate: bool = True) -> AsyncIterator[Store]:
    store = await open_store(url, master_key=key or master_key(url), migrate=migrate)
    try:
        yield store
    finally:
        await store.close()


async def fill(store: Store) -> str:
    """One secret of each kind; the id of the endpoint."""
    numbers = count()
    await store.write(projects.ensure_project, id=DEFAULT_PROJECT, secret=SECRET, now=1.0)
    wishes = endpoints.EndpointFields(
        url="https://a.example",
        name="a",
        event_types=(EventType.COMPLETED,),
        headers={"authorization": HEADER},
    )
    made = await store.write(
        endpoints.create,
        DEFAULT_PROJECT,
        wishes,
        secret=OWN,
        mint=lambda prefix: f"{prefix}_{next(numbers)}",
        now=1.0,
    )
    await store.write(lambda c: c.execute(text(PLAIN[1])))
    await store.write(keep_credentials)
    return made.id


def keep_credentials(connection: Connection) -> None:
    connection.execute(update(accounts).values(credentials=CREDENTIALS))


async def readable(store: Store, endpoint_id: str) -> bool:
    """Whether all that `fill` wrote is read as it was."""
    found = await store.read(endpoints_by_id, [endpoint_id], now=2.0)
    one = found[endpoint_id]
    return (
        await store.read(projects.webhook_secret, DEFAULT_PROJECT) == SECRET
        and one.secrets == (OWN,)
        and one.headers == {"authorization": HEADER}
    )


async def old_database(url: str, endpoints: int) -> None:
    """As a version before this one has left it, with secrets that are plain."""
    store = bare(url)

    def make(connection: Connection) -> None:
        opening.upgrade(connection)
        for statement in PLAIN:
            connection.execute(text(statement))
        rows = [
            {
                "id": f"whe_{number}",
                "secrets": f'[{{"secret": "{OWN}", "until": null}}]',
                "headers": f'{{"authorization": "{HEADER}"}}',
            }
            for number in range(endpoints)
        ]
        connection.execute(text(ENDPOINT), rows)

    await store.write(make)
    await store.close()


async def test_no_secret_is_on_disk(database_url: str) -> None:
    async with opened(database_url) as store:
        id = await fill(store)
        assert await readable(store, id)
        kept = raw(database_url)
        assert len(kept) == len(QUERIES)
        assert all(one.startswith(HEAD) for one in kept)
        if database_url.startswith("sqlite"):
            found = on_disk(database_url)
            assert HEAD.encode() in found
            assert not [one for one in SECRETS if one.encode() in found]


async def test_an_old_database_is_sealed_as_it_is_upgraded(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rekey, "STEP", 3)
    await old_database(database_url, endpoints=7)
    async with opened(database_url) as store:
        kept = raw(database_url)
        assert len(kept) == 15
        assert all(one.startswith(HEAD) for one in kept)
        assert await readable(store, "whe_6")
        if database_url.startswith("sqlite"):
            # Neither what the migrations copied nor the log has it any more.
            found = on_disk(database_url)
            assert not [one for one in SECRETS if one.encode() in found]
    async with opened(database_url):
        assert raw(database_url) == kept, "what is sealed is not sealed again"


async def test_processes_that_start_together_seal_beside_each_other(postgres_url: str) -> None:
    await old_database(postgres_url, endpoints=20)
    stores = await asyncio.gather(
        *(open_store(postgres_url, master_key=MASTER_KEY) for _ in range(3))
    )
    try:
        assert all(one.startswith(HEAD) for one in raw(postgres_url))
        assert all([await readable(store, "whe_19") for store in stores])
    finally:
        for store in stores:
            await store.close()


async def test_two_stores_of_one_process_have_each_its_own_key(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path / name}" for name in ("a.db", "b.db")]
    async with opened(urls[0]) as a, opened(urls[1]) as b:
        assert a.keys.keys != b.keys.keys
        assert await readable(a, await fill(a))
        assert await readable(b, await fill(b))


async def test_without_a_key_postgresql_keeps_secrets_as_they_are(postgres_url: str) -> None:
    store = await open_store(postgres_url)
    try:
        assert not store.seals
        assert store.keys.source == "nowhere"
        id = await fill(store)
        assert SECRET in raw(postgres_url)
        assert await readable(store, id)
    finally:
        await store.close()
    async with opened(postgres_url) as store:
        assert store.seals
        assert all(one.startswith(HEAD) for one in raw(postgres_url))
        assert await readable(store, id)


async def test_a_key_that_is_not_here_stops_the_start_and_is_named(database_url: str) -> None:
    async with opened(database_url, key=OTHER_KEY) as store:
        await fill(store)
    needed = key_id(b"o" * KEY_BYTES)
    for migrate in (True, False):
        with pytest.raises(SettingsError, match=f"{needed}.*BATCHBELL_MASTER_KEY"):
            await open_store(database_url, migrate=migrate)
        with pytest.raises(SettingsError, match=needed):
            await open_store(database_url, migrate=migrate, master_key=MASTER_KEY)
    if database_url.startswith("sqlite"):
        file = masterkeys.file_beside(Path(str(parse_url(database_url).database)))
        assert not file.exists(), "a new key would only hide that the old one is missing"


async def test_a_key_file_that_has_gone_is_not_made_anew(sqlite_url: str) -> None:
    file = masterkeys.file_beside(Path(str(parse_url(sqlite_url).database)))
    async with opened(sqlite_url) as store:
        assert store.keys.made
        id = await fill(store)
    away = file.rename(f"{file}.away")
    with pytest.raises(SettingsError, match=f"put back the key file {file}"):
        await open_store(sqlite_url)
    assert not file.exists()
    away.rename(file)
    async with opened(sqlite_url) as store:
        assert not store.keys.made
        assert await readable(store, id)


async def test_to_look_makes_no_key_and_seals_nothing(sqlite_url: str) -> None:
    await (await open_store(sqlite_url)).close()
    file = masterkeys.file_beside(Path(str(parse_url(sqlite_url).database)))
    file.unlink()
    async with opened(sqlite_url, migrate=False) as store:
        assert not store.seals
    assert not file.exists()


async def test_a_key_of_the_environment_takes_over_from_the_file(sqlite_url: str) -> None:
    file = masterkeys.file_beside(Path(str(parse_url(sqlite_url).database)))
    async with opened(sqlite_url) as store:
        id = await fill(store)
    async with opened(sqlite_url, key=OTHER_KEY) as store:
        assert store.keys.source == "BATCHBELL_MASTER_KEY"
        assert await readable(store, id)
        await rekey.rekey(store)
    file.unlink()
    async with opened(sqlite_url, key=OTHER_KEY) as store:
        assert await readable(store, id)


async def test_what_is_damaged_is_told_without_the_secret(database_url: str) -> None:
    async with opened(database_url) as store:
        await fill(store)
        half = "UPDATE projects SET webhook_secret = substr(webhook_secret, 1, 40)"
        await store.write(lambda c: c.execute(text(half)))
        with pytest.raises(SecretUnreadable, match=r"projects\.webhook_secret") as caught:
            await store.read(projects.webhook_secret, DEFAULT_PROJECT)
        assert SECRET not in str(caught.value)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rekey, "STEP", 2)


@pytest.mark.usefixtures("small_steps")
async def test_a_rekey_of_the_key_file_drops_the_old_key(sqlite_url: str) -> None:
    file = masterkeys.file_beside(Path(str(parse_url(sqlite_url).database)))
    await old_database(sqlite_url, endpoints=5)
    async with opened(sqlite_url) as store:
        (old,) = masterkeys.read_file(file)
        done = await rekey.rekey(store)
        assert (done.texts, done.idle) == (11, (key_id(old),))
        assert await readable(store, "whe_4")
        (new,) = masterkeys.read_file(file)
        assert new != old
        assert done.key == key_id(new)
        assert all(one.startswith(head_of(done.key)) for one in raw(sqlite_url))
        assert file.stat().st_mode & 0o777 == 0o600
        assert head_of(key_id(old)).encode() not in on_disk(sqlite_url)
    async with opened(sqlite_url) as store:
        assert await readable(store, "whe_4")


@pytest.mark.usefixtures("small_steps")
async def test_a_rekey_from_the_environment_seals_under_its_first_key(database_url: str) -> None:
    await old_database(database_url, endpoints=5)
    async with opened(database_url, key=MASTER_KEY):
        pass
    async with opened(database_url, key=f"{OTHER_KEY},{MASTER_KEY}") as store:
        assert not any(head_of(key_id(b"o" * KEY_BYTES)) in one for one in raw(database_url))
        done = await rekey.rekey(store)
        assert (done.key, done.texts) == (key_id(b"o" * KEY_BYTES), 11)
        assert (await rekey.rekey(store)).texts == 0
    async with opened(database_url, key=OTHER_KEY) as store:
        assert await readable(store, "whe_4")


async def test_a_rekey_that_others_undo_says_so(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        opened(postgres_url, key=MASTER_KEY) as old,
        opened(postgres_url, key=f"{OTHER_KEY},{MASTER_KEY}") as new,
    ):
        await fill(old)
        seal_all = rekey.seal_all

        async def undone(store: Store, *, unless: str) -> int:
            count = await seal_all(store, unless=unless)
            await old.write(projects.set_webhook_secret, DEFAULT_PROJECT, SECRET)
            return count

        monkeypatch.setattr(rekey, "seal_all", undone)
        with pytest.raises(SettingsError, match="older key"):
            await rekey.rekey(new)


async def test_there_is_nothing_to_rekey_without_a_key(postgres_url: str) -> None:
    store = await open_store(postgres_url)
    try:
        with pytest.raises(SettingsError, match="BATCHBELL_MASTER_KEY is not set"):
            await rekey.rekey(store)
    finally:
        await store.close()
