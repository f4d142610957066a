"""Merging results: who merges them just now, and what is written when they are there."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace
from sqlalchemy import (
    ColumnElement,
    Connection,
    Update,
    exists,
    or_,
    select,
    text,
    true,
    update,
)

from batchbell.core import results as rules
from batchbell.core.attachment import ResultsState
from batchbell.core.deletion import Deletes
from batchbell.core.errors import LeaseLost
from batchbell.core.model import Batch, DeliveryState, EventType, Mint, Snapshot
from batchbell.core.results import Collecting, ResultsMode, Tally
from batchbell.core.turns import Waiting
from batchbell.storage import deletions, outbox
from batchbell.storage.batches import join_soon, joined_batches, save, to_batch, wake_submissions
from batchbell.storage.engine import DELIVERIES, storable, wake
from batchbell.storage.leases import Leased
from batchbell.storage.results import to_results
from batchbell.storage.schema import batches, deliveries, events, results

_LEASED = Leased(results, open="state = 'waiting'")


def waiting(connection: Connection) -> list[Waiting]:
    """The accounts with results to be merged. Costs as much as there are accounts."""
    return _LEASED.waiting(connection)


def claim_due(
    connection: Connection,
    account_id: str | None = None,
    *,
    now: float,
    lease_seconds: float,
    token: str,
    waited_seconds: float = 0.0,
) -> Collecting | None:
    """Take the results that have waited longest, of an account or of any; None if none are due.

    Only of those that have been due for `waited_seconds`.
    """
    due = (
        select(results.c.id)
        .where(true() if account_id is None else results.c.account_id == account_id)
        .where(results.c.state == text("'waiting'"), results.c.due_at <= now - waited_seconds)
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
    """When results are next to be merged."""
    return _LEASED.next_due(connection)


def hold(connection: Connection, held: Collecting, *, now: float, lease_seconds: float) -> None:
    """Lengthen the lease of a merge that goes on. Raises LeaseLost."""
    fenced(connection, held, of(held).values(lease_until=now + lease_seconds))


def put_off(
    connection: Connection,
    held: Collecting,
    *,
    reason: str,
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
        reason=storable(reason),
        ended_at=now if next_at is None else None,
        lease_until=None,
        lease_token=None,
    )
    fenced(connection, held, later)


def of(held: Collecting) -> Update:
    """A change of what is held, and of nothing else."""
    return update(results).where(
        results.c.id == held.results.id, results.c.lease_token == held.lease_token
    )


def fenced(connection: Connection, held: Collecting, change: Update) -> None:
    """Write it under the lease. Raises LeaseLost."""
    if connection.execute(change).rowcount != 1:
        raise LeaseLost(f"results {held.results.id}")


def keep(
    connection: Connection,
    held: Collecting,
    tally: Tally,
    *,
    inline: str | None,
    seen: Snapshot | None = None,
    deletes: Deletes = Deletes.NONE,
    mint: Mint,
    now: float,
) -> None:
    """Write that the results are there, and let go what waits for them. Raises LeaseLost.

    `inline` is kept only where a webhook is to carry the lines. `seen` is the batch as the
    provider describes it now, where it named its files late. `deletes` says which of the
    provider's files are wanted no more from now on.
    """
    if inline is not None and not _any_inline(connection, held.results.id):
        inline = None
    there = of(held).values(
        state=ResultsState.READY,
        due_at=None,
        lease_until=None,
        lease_token=None,
        reason=None,
        lines=tally.lines,
        size=tally.size,
        tally=storable(msgspec.json.encode(tally).decode()),
        inline=None if inline is None else storable(inline),
        ended_at=now,
    )
    fenced(connection, held, there)
    batch = _note(connection, held, tally, seen)
    deletions.request(connection, replace(held, batch=batch), tally, deletes, now=now)
    _let_go(connection, held.results.id, now=now)
    if not _was_announced(connection, batch):
        outbox.record(connection, [(batch, EventType.RESULTS_READY)], mint=mint, now=now)
    wake_submissions(connection, [batch], now=now)
    join_soon(connection, batch, now=now)


def give_up(connection: Connection, held: Collecting, *, reason: str, now: float) -> None:
    """Write that the results cannot be had for now, and let go what waits for them.

    Raises LeaseLost.
    """
    put_off(connection, held, reason=reason, next_at=None, now=now)
    _let_go(connection, held.results.id, now=now)
    wake_submissions(connection, [held.batch], now=now)
    join_soon(connection, held.batch, now=now)


def _note(connection: Connection, held: Collecting, tally: Tally, seen: Snapshot | None) -> Batch:
    """Write what the files say of the batch, unless it has begun another life meanwhile."""
    row = connection.execute(
        joined_batches().where(batches.c.key == held.batch.key).with_for_update(of=batches)
    ).one()
    batch = to_batch(row)
    if batch.generation != held.batch.generation or not batch.status.ended:
        return held.batch
    noted = replace(
        batch,
        merged_outcome=rules.outcome(tally),
        snapshot=rules.with_model(seen or batch.snapshot, tally),
    )
    save(connection, [noted])
    return noted


def _was_announced(connection: Connection, batch: Batch) -> bool:
    """Results that are merged anew were announced before."""
    announced = exists().where(
        events.c.batch_key == batch.key,
        events.c.type == EventType.RESULTS_READY,
        events.c.generation == batch.generation,
    )
    return bool(connection.execute(select(announced)).scalar())


def _wants_inline(results_id: str) -> tuple[ColumnElement[bool], ...]:
    about = select(events.c.id).where(events.c.results_id == results_id)
    return (deliveries.c.event_id.in_(about), deliveries.c.results == ResultsMode.INLINE)


def _any_inline(connection: Connection, results_id: str) -> bool:
    return bool(connection.execute(select(exists().where(*_wants_inline(results_id)))).scalar())


def _let_go(connection: Connection, results_id: str, *, now: float) -> None:
    """Send what waited for the lines and for nothing else."""
    waiting = (
        *_wants_inline(results_id),
        deliveries.c.state == DeliveryState.PENDING,
        deliveries.c.lease_token.is_(None),
        deliveries.c.attempts == deliveries.c.attempts_before,
    )
    if connection.execute(update(deliveries).where(*waiting).values(due_at=now)).rowcount:
        wake(connection, DELIVERIES)
