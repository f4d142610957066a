"""What was learnt of an account and a model: tokens for bytes, and how many may be enqueued."""

from __future__ import annotations

from sqlalchemy import Connection, func, select, update

from batchbell.core.governor import Learnt
from batchbell.core.submission import PartState
from batchbell.storage.bulk import insert_missing
from batchbell.storage.jobs import capacities, parts, submissions
from batchbell.storage.schema import batches


def learnt(connection: Connection, account_id: str, model: str) -> Learnt:
    """What is known; nothing, at first."""
    query = select(capacities).where(
        capacities.c.account_id == account_id, capacities.c.model == model
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return Learnt()
    return Learnt(bytes=row.bytes, tokens=row.tokens, cap=row.cap, cap_at=row.cap_at, told=row.told)


def locked(connection: Connection, account_id: str, model: str) -> Learnt:
    """The same; nobody else changes it, or takes room, until the transaction ends."""
    row = {
        "account_id": account_id,
        "model": model,
        "bytes": 0.0,
        "tokens": 0.0,
        "cap_at": 0.0,
        "told": False,
    }
    insert_missing(connection, capacities, [row])
    this = select(capacities.c.model).where(
        capacities.c.account_id == account_id, capacities.c.model == model
    )
    connection.execute(this.with_for_update())
    return learnt(connection, account_id, model)


def keep(connection: Connection, account_id: str, model: str, known: Learnt) -> None:
    """Write what was learnt; the row must be locked."""
    this = (capacities.c.account_id == account_id, capacities.c.model == model)
    connection.execute(
        update(capacities)
        .where(*this)
        .values(
            bytes=known.bytes,
            tokens=known.tokens,
            cap=known.cap,
            cap_at=known.cap_at,
            told=known.told,
        )
    )


def enqueued(connection: Connection, account_id: str, model: str) -> int:
    """Tokens, by estimate, of all parts that the provider has or is being handed."""
    query = (
        select(func.coalesce(func.sum(parts.c.tokens), 0))
        .join(submissions, submissions.c.id == parts.c.submission_id)
        .join(batches, batches.c.key == submissions.c.batch_key)
        .where(
            batches.c.account_id == account_id,
            submissions.c.model == model,
            submissions.c.due_at.isnot(None),
            parts.c.state.in_([PartState.SUBMITTING, PartState.RUNNING]),
        )
    )
    return int(connection.execute(query).scalar_one())
