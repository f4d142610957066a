"""API keys: made once, shown once, kept as a hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, exists, insert, select, update

from batchbell.core.errors import NotFound
from batchbell.core.model import DEFAULT_PROJECT, Mint
from batchbell.storage.projects import webhook_secret
from batchbell.storage.schema import keys

PREFIX = "bb_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What may be shown of a key after it was made."""

    id: str
    project_id: str
    name: str
    hint: str
    created_at: float
    revoked_at: float | None


def hashed(key: str) -> str:
    """A key is 192 random bits: a plain hash cannot be searched for it."""
    return hashlib.sha256(key.encode()).hexdigest()


def create_key(
    connection: Connection, project_id: str, *, name: str, key: str, mint: Mint, now: float
) -> Key:
    """Keep the hash of a new `bb_…` key; from the first one on, every caller needs one."""
    made = Key(
        id=mint("key"),
        project_id=project_id,
        name=name,
        hint=f"{PREFIX}…{key[-4:]}",
        created_at=now,
        revoked_at=None,
    )
    row = {
        "id": made.id,
        "project_id": project_id,
        "name": name,
        "hash": hashed(key),
        "hint": made.hint,
        "created_at": now,
    }
    connection.execute(insert(keys).values(row))
    return made


def find_key(connection: Connection, key: str) -> Key | None:
    """The key's record; None for a wrong or revoked one."""
    query = select(keys).where(keys.c.hash == hashed(key), keys.c.revoked_at.is_(None))
    row = connection.execute(query).one_or_none()
    return _key(row) if row else None


def find_signer(connection: Connection, key_id: str) -> tuple[Key, str] | None:
    """A key by its id, and the secret that signs its sessions; None for one that is not in force.

    It takes both to sign: the hash of the key, and the secret of the project `default`.
    """
    query = select(keys).where(keys.c.id == key_id, keys.c.revoked_at.is_(None))
    row = connection.execute(query).one_or_none()
    return (_key(row), f"{row.hash}.{server_secret(connection)}") if row else None


def server_secret(connection: Connection) -> str:
    """What signs the forms of local mode, where nobody has a key."""
    return webhook_secret(connection, DEFAULT_PROJECT) or ""


def ever_made(connection: Connection) -> bool:
    """Whether a key was ever made: until then, this is local mode.

    Revoked keys count. They stay in the table, so that a server that was opened to a network never
    falls back to asking nobody for a key.
    """
    return bool(connection.execute(select(exists(keys.c.id))).scalar())


def any_in_force(connection: Connection) -> bool:
    """Whether some key is in force, of any project."""
    query = select(keys.c.id).where(keys.c.revoked_at.is_(None))
    return connection.execute(query.limit(1)).one_or_none() is not None


def list_keys(connection: Connection, project_id: str) -> list[Key]:
    """The project's keys, revoked ones too, newest first."""
    query = select(keys).where(keys.c.project_id == project_id).order_by(keys.c.id.desc())
    return [_key(row) for row in connection.execute(query)]


def revoke_key(connection: Connection, project_id: str, key_id: str, *, now: float) -> Key:
    """Revoke a key; again is no error. Raises NotFound."""
    named = (keys.c.project_id == project_id, keys.c.id == key_id)
    connection.execute(
        update(keys).where(*named, keys.c.revoked_at.is_(None)).values(revoked_at=now)
    )
    row = connection.execute(select(keys).where(*named)).one_or_none()
    if row is None:
        raise NotFound("key", key_id)
    return _key(row)


def _key(row: Row[Any]) -> Key:
    return Key(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        hint=row.hint,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )
