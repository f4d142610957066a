"""Which account has a file of a provider: one that was uploaded through us, or of a batch."""

from __future__ import annotations

from sqlalchemy import Connection, delete, or_, select

from batchbell.storage.bulk import among, insert_missing
from batchbell.storage.engine import storable
from batchbell.storage.schema import batches, files


def expect(
    connection: Connection, project_id: str, token: str, *, account_id: str, now: float
) -> None:
    """Note that a file is about to be uploaded: where there is no room for that, it is not.

    `token` stands for its id until that is known.
    """
    row = {"project_id": project_id, "account_id": account_id, "id": token}
    insert_missing(connection, files, [{**row, "created_at": now}])


def remember(
    connection: Connection,
    project_id: str,
    token: str,
    *,
    file_id: str | None,
    account_id: str,
    now: float,
) -> None:
    """Note that the account has this file, or that there is none after all."""
    same = (files.c.project_id == project_id, files.c.id == token)
    connection.execute(delete(files).where(*same))
    if file_id is not None:
        row = {"project_id": project_id, "account_id": account_id, "id": storable(file_id)}
        insert_missing(connection, files, [{**row, "created_at": now}])


def account_of(connection: Connection, project_id: str, file_id: str) -> str | None:
    """The id of the project's account that has the file, as far as that is known."""
    id = storable(file_id)
    uploaded = select(files.c.account_id).where(files.c.project_id == project_id, files.c.id == id)
    found: str | None = connection.execute(uploaded).scalar_one_or_none()
    if found is not None:
        return found
    left = or_(batches.c.output_file_id == id, batches.c.error_file_id == id)
    of_batch = select(batches.c.account_id).where(left, batches.c.project_id == project_id)
    return connection.execute(of_batch.limit(1)).scalar_one_or_none()


def forget_old(connection: Connection, *, before: float, limit: int) -> int:
    """Forget up to `limit` uploads from before a time; returns how many."""
    old = (
        select(files.c.key)
        .where(files.c.created_at < before)
        .order_by(files.c.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    keys = connection.execute(old).scalars().all()
    if not keys:
        return 0
    return connection.execute(delete(files).where(among(connection, files.c.key, keys))).rowcount
