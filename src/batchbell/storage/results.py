"""Results: whose are wanted, who merges them just now, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Update,
    delete,
    func,
    or_,
    select,
    text,
    true,
    update,
)

from batchbell.core.errors import LeaseLost, NotFound
from batchbell.core.results import Collecting, Results
from batchbell.core.travelling import ResultsState
from batchbell.core.turns import Waiting
from batchbell.storage.batches import get_batch, joined_batches, to_batch
from batchbell.storage.bulk import among
from batchbell.storage.jobs import results
from batchbell.storage.schema import batches
from batchbell.storage.texts import storable
from batchbell.storage.wanting import TALLY
from batchbell.storage.wanting import ask_again as ask_again  # noqa: PLC0414 - of results


def of_batch(connection: Connection, project_id: str, batch_id: str) -> Results:
    """The results of a batch of the project, the newest. Raises NotFound."""
    found = of_key(connection, get_batch(connection, project_id, batch_id).key)
    if found is None:
        raise NotFound("results of batch", batch_id)
    return found


def of_key(connection: Connection, batch_key: int) -> Results | None:
    """The results of a batch by its key, the newest; None where nobody wanted them."""
    query = select(results).where(results.c.batch_key == batch_key)
    row = connection.execute(query.order_by(results.c.id.desc()).limit(1)).one_or_none()
    return None if row is None else to_results(row)


def of_keys(connection: Connection, keys: Sequence[int]) -> dict[int, Results]:
    """The newest results of each batch that has any, by its key."""
    if not keys:
        return {}
    query = select(results).where(among(connection, results.c.batch_key, keys))
    rows = connection.execute(query.order_by(results.c.id))
    return {row.batch_key: to_results(row) for row in rows}


def by_id(connection: Connection, results_id: str) -> Results | None:
    """For whoever brings a link; None where there are none (any more)."""
    row = connection.execute(select(results).where(results.c.id == results_id)).one_or_none()
    return None if row is None else to_results(row)


def waiting(connection: Connection, *, now: float) -> list[Waiting]:
    """The accounts with results to be merged. Costs as much as there are accounts."""
    return [
        Waiting(account_id=row.id, project_id=row.project_id, due_at=row.due_at)
        for row in connection.execute(WAITING, {"now": now})
    ]


WAITING = text("""
WITH RECURSIVE ring(id) AS (
  SELECT (SELECT min(account_id) FROM results WHERE state = 'waiting')
  UNION ALL
  SELECT (SELECT min(r.account_id) FROM results r
          WHERE r.state = 'waiting' AND r.account_id > ring.id)
  FROM ring WHERE ring.id IS NOT NULL)
SELECT ring.id, coalesce(a.project_id, '') AS project_id,
  (SELECT r.due_at FROM results r
   WHERE r.account_id = ring.id AND r.state = 'waiting'
   AND (r.lease_until IS NULL OR r.lease_until <= :now)
   ORDER BY r.due_at LIMIT 1) AS due_at
FROM ring LEFT JOIN accounts a ON a.id = ring.id WHERE ring.id IS NOT NULL
""")


def claim_due(
    connection: Connection,
    account_id: str | None = None,
    *,
    now: float,
    lease_seconds: float,
    token: str,
) -> Collecting | None:
    """Take the results that have waited longest, of an account or of any; None if none are due."""
    due = (
        select(results.c.id)
        .where(true() if account_id is None else results.c.account_id == account_id)
        .where(results.c.state == text("'waiting'"), results.c.due_at <= now)
        .where(or_(results.c.lease_until.is_(None), results.c.lease_until <= now))
        .order_by(results.c.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    taken = {"lease_until": now + lease_seconds, "lease_token": token}
    claim = update(results).where(results.c.id.in_(due)).values(tries=results.c.tries + 1, **taken)
    row = connection.execute(claim.returning(*results.c)).one_or_none()
    if row is None:
        return None
    batch = connection.execute(joined_batches().where(batches.c.key == row.batch_key)).one()
    return Collecting(results=to_results(row), batch=to_batch(batch), lease_token=token)


def next_due(connection: Connection) -> float | None:
    """When a worker is next wanted."""
    free = (
        select(results.c.due_at)
        .where(results.c.state == text("'waiting'"), results.c.lease_until.is_(None))
        .order_by(results.c.due_at)
        .limit(1)
    )
    run_out = select(func.min(results.c.lease_until)).where(results.c.lease_until.isnot(None))
    times = [connection.execute(query).scalar() for query in (free, run_out)]
    return min((time for time in times if time is not None), default=None)


def hold(connection: Connection, held: Collecting, *, now: float, lease_seconds: float) -> None:
    """Lengthen the lease of a merge that goes on. Raises LeaseLost."""
    fenced(connection, held, of(held).values(lease_until=now + lease_seconds))


def put_off(
    connection: Connection,
    held: Collecting,
    *,
    trouble: str,
    next_at: float | None,
    counted: bool = True,
    now: float,
) -> None:
    """Try again at `next_at`; never, where that is None. Raises LeaseLost.

    What was only waited for is not `counted` as a try.
    """
    state = ResultsState.FAILED if next_at is None else ResultsState.WAITING
    later = of(held).values(
        state=state,
        due_at=next_at,
        tries=results.c.tries - int(not counted),
        trouble=storable(trouble),
        ended_at=now if next_at is None else None,
        lease_until=None,
        lease_token=None,
    )
    fenced(connection, held, later)


def old(connection: Connection, *, before: float, limit: int) -> list[Results]:
    """Results that were merged, or given up, before a time; the oldest first."""
    query = select(results).where(results.c.ended_at.isnot(None), results.c.ended_at < before)
    rows = connection.execute(query.order_by(results.c.ended_at).limit(limit))
    return [to_results(row) for row in rows]


def forget(connection: Connection, ids: Sequence[str], *, before: float) -> None:
    """Forget results whose files are gone; links to them answer that they are gone.

    Those that were asked for again meanwhile stay.
    """
    over = results.c.ended_at < before
    connection.execute(delete(results).where(among(connection, results.c.id, ids), over))


def of(held: Collecting) -> Update:
    """A change of what is held, and of nothing else."""
    return update(results).where(
        results.c.id == held.results.id, results.c.lease_token == held.lease_token
    )


def fenced(connection: Connection, held: Collecting, change: Update) -> None:
    """Write it under the lease. Raises LeaseLost."""
    if connection.execute(change).rowcount != 1:
        raise LeaseLost(f"results {held.results.id}")


def to_results(row: Row[Any]) -> Results:
    """From a row of `results`."""
    return Results(
        id=row.id,
        project_id=row.project_id,
        batch_key=row.batch_key,
        state=ResultsState(row.state),
        secret=row.secret,
        tries=row.tries,
        trouble=row.trouble,
        tally=None if row.tally is None else TALLY.decode(row.tally),
        created_at=row.created_at,
        ended_at=row.ended_at,
        asked_at=row.asked_at,
    )
