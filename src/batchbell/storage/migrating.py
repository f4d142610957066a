"""Bringing a database's schema up to date, in one transaction: a kill leaves the old one whole."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from batchbell import failpoints
from batchbell.core.errors import StoreOutdated
from batchbell.storage.engine import dialect_of

MIGRATION_LOCK = 0x6261746368
"""Held on PostgreSQL while migrating, so that processes that start together take turns."""
LOCK_SECONDS = 10
"""A migration waits no longer for a table: while it does, everybody else waits behind it."""


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def head() -> str:
    """The revision that this version of Batchbell needs."""
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
    if revision is not None and revision not in known:
        raise StoreOutdated(
            f"The database was migrated by a newer Batchbell (schema {revision}): upgrade this one."
        )
