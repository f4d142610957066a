"""From a database URL to an open store whose schema is up to date."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, and_, select, text, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from batchbell import failpoints
from batchbell.core.errors import SettingsError, StoreOutdated, StoreUnavailable
from batchbell.storage.engine import Store, dialect_of
from batchbell.storage.masterkeys import file_beside
from batchbell.storage.postgresql import PostgresStore
from batchbell.storage.rekey import unlock
from batchbell.storage.schema import (
    accounts,
    creations,
    deletions,
    deliveries,
    endpoints,
    replays,
    results,
    submissions,
)
from batchbell.storage.sqlite import SqliteStore


def parse_url(database_url: str) -> URL:
    """Read `sqlite:///path` or `postgresql://…`. Raises SettingsError for anything else."""
    try:
        url = make_url(database_url)
    except ArgumentError as error:
        raise SettingsError(
            "DATABASE_URL cannot be read; write sqlite:///path/to/file.db or"
            " postgresql://user:password@host/database."
        ) from error
    backend = url.drivername.split("+")[0]
    if backend in ("postgres", "postgresql"):
        return url.set(drivername="postgresql")
    if backend != "sqlite":
        raise SettingsError(
            f"DATABASE_URL: {backend!r} is not supported; use sqlite or postgresql."
        )
    if not url.database or url.database == ":memory:":
        raise SettingsError("DATABASE_URL: SQLite needs a file, so that nothing is lost.")
    return url


async def open_store(
    database_url: str, *, migrate: bool = True, master_key: str | None = None
) -> Store:
    """Open the database, bring its schema up to date, and seal the secrets in it.

    `master_key` is the setting; without it the keys of a SQLite file are beside it, and made at
    first start. With `migrate=False` schema and keys are only checked. Raises SettingsError for a
    URL or a key that cannot be used, StoreInUse, StoreUnavailable, and StoreOutdated when the
    schema is not ours.
    """
    url = parse_url(database_url)
    path = _path(url) if url.drivername == "sqlite" else None
    store: Store = PostgresStore(url) if path is None else SqliteStore(path)
    file = None if path is None else file_beside(path)
    try:
        if migrate:
            async with store.erasing():
                await store.migrate(upgrade)
                await unlock(store, setting=master_key, file=file, write=True)
        else:
            await store.read(check)
            await unlock(store, setting=master_key, file=file, write=False)
    except BaseException:
        await store.close()
        raise
    return store


def _path(url: URL) -> Path:
    assert url.database
    path = Path(url.database).expanduser()
    if path.is_dir():
        raise SettingsError(f"DATABASE_PATH {path} is a directory; name a file in it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(f"Cannot make the directory {path.parent}: {error}") from error
    return path


MIGRATION_LOCK = 0x6261746368
"""Held on PostgreSQL while migrating, so that processes that start together take turns."""
LOCK_SECONDS = 10
"""A migration waits no longer for a table: while it does, everybody else waits behind it."""


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


@cache
def head() -> str:
    """The revision that this version of Batchbell needs. Every migration is imported for it."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


def current(connection: Connection) -> str | None:
    """The revision of the database; None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(connection: Connection, to: str = "head") -> str:
    """Migrate to the newest schema, or on the way there to an older one; return its revision.

    Raises StoreOutdated when the database belongs to a newer version.
    """
    take_turn(connection)
    revision = current(connection)
    if revision == head():
        return revision
    _known(revision)
    command.upgrade(_config(connection), to)
    failpoints.reach(failpoints.IN_MIGRATION)
    return head() if to == "head" else to


def take_turn(connection: Connection) -> None:
    """Wait until nobody else migrates; from then on wait for no table longer than LOCK_SECONDS."""
    if dialect_of(connection) == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:k)"), {"k": MIGRATION_LOCK})
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))


def check(connection: Connection) -> str:
    """Return the revision if it is the newest. Raises StoreOutdated otherwise."""
    revision = current(connection)
    if revision != head():
        _known(revision)
        raise StoreOutdated("The database schema is not up to date: run `batchbell migrate`.")
    return revision


def _known(revision: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision is None or revision in known:
        return
    if revision < min(known):
        raise StoreOutdated(
            f"The database was made before the first release (schema {revision}). Start the last"
            f" Batchbell that has schema {min(known)} on it once, then this one."
        )
    raise StoreOutdated(
        f"The database was migrated by a newer Batchbell (schema {revision}): upgrade this one."
    )


def size(connection: Connection) -> int:
    """How much room the database takes, in bytes."""
    if dialect_of(connection) == "postgresql":
        query = "SELECT pg_database_size(current_database())"
    else:
        query = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
    return int(connection.execute(text(query)).scalar_one())


def release_all(connection: Connection, *, now: float) -> int:
    """End every lease, probes among them, and return how many deliveries there were.

    Only for SQLite, at start: the lock on the file proves that whoever held them is dead. On
    PostgreSQL the holders may live, and a lease ends by its time.
    """
    connection.execute(
        update(accounts)
        .where(accounts.c.lease_token.isnot(None))
        .values(lease_token=None, lease_until=None, due_at=now)
    )
    for jobs in (replays, results, deletions, submissions):
        held = update(jobs).where(jobs.c.lease_token.isnot(None))
        connection.execute(held.values(lease_token=None, lease_until=None, due_at=now))
    asked = update(creations).where(creations.c.state == "asked")
    connection.execute(asked.values(due_at=now))
    # Only what is pending has a lease, and an index of what is pending is read for it.
    leased = and_(text("deliveries.state = 'pending'"), deliveries.c.lease_token.isnot(None))
    probed = endpoints.c.id.in_(select(deliveries.c.endpoint_id).where(leased))
    connection.execute(
        update(endpoints).where(endpoints.c.probe_at.isnot(None), probed).values(probe_at=now)
    )
    left = update(deliveries).where(leased)
    return connection.execute(left.values(lease_token=None, due_at=now)).rowcount
