"""Having submissions looked at: when one of their parts has ended, others may find room."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select, update

from batchbell.core.model import Batch, BatchKind
from batchbell.core.submission import PartState
from batchbell.core.travelling import ResultsState
from batchbell.storage.bulk import among
from batchbell.storage.engine import RESULTS, SUBMISSIONS, wake
from batchbell.storage.jobs import parts, results, submissions
from batchbell.storage.schema import batches


def stir_for(connection: Connection, changed: Sequence[Batch], *, now: float) -> None:
    """After something became of these batches: have the submissions of their accounts looked at.

    Only for what is a part and has ended: then its own submission goes on, and there is room for
    others.
    """
    ended = [batch for batch in changed if batch.kind is BatchKind.PART and batch.status.ended]
    account_ids = sorted({batch.account_id for batch in ended})
    if not account_ids:
        return
    whole = select(batches.c.key).where(
        batches.c.account_id.in_(account_ids),
        batches.c.kind == BatchKind.JOINED,
        batches.c.ended_at.is_(None),
    )
    open_ = select(submissions.c.id).where(submissions.c.batch_key.in_(whole))
    # In one order everywhere: two that stir the same submissions would wait for each other.
    locked = connection.execute(open_.order_by(submissions.c.id).with_for_update())
    ids = locked.scalars().all()
    waiting = (
        parts.c.state == PartState.WAITING,
        parts.c.due_at > now,
        among(connection, parts.c.submission_id, ids),
    )
    connection.execute(update(parts).where(*waiting).values(due_at=now))
    stirred = update(submissions).where(among(connection, submissions.c.id, ids))
    connection.execute(stirred.values(due_at=now))
    wake(connection, SUBMISSIONS)


def join_soon(connection: Connection, batch: Batch, *, now: float) -> None:
    """After a part's results were merged or given up: joined results that wait for them are due."""
    if batch.kind is not BatchKind.PART:
        return
    whole = (
        select(submissions.c.batch_key)
        .join(parts, parts.c.submission_id == submissions.c.id)
        .where(parts.c.batch_key == batch.key)
    )
    waiting = (
        results.c.batch_key.in_(whole),
        results.c.state == ResultsState.WAITING,
        results.c.lease_token.is_(None),
        results.c.due_at > now,
    )
    if connection.execute(update(results).where(*waiting).values(due_at=now)).rowcount:
        wake(connection, RESULTS)
