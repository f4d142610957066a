"""From a database URL to an open store whose schema is the right one."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from batchbell.core.errors import SettingsError, StoreUnavailable
from batchbell.storage import migrating
from batchbell.storage.engine import Store
from batchbell.storage.masterkeys import file_beside
from batchbell.storage.postgresql import PostgresStore
from batchbell.storage.sqlite import SqliteStore
from batchbell.storage.unlocking import unlock


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
                await store.migrate(migrating.upgrade)
                await unlock(store, setting=master_key, file=file, write=True)
        else:
            await store.read(migrating.check)
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
