"""When results are there, or given up: whoever waited for them is told, in the same transaction."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from sqlalchemy import ColumnElement, Connection, exists, select, update

from batchbell.core import results as rules
from batchbell.core.deletion import Deletes
from batchbell.core.model import Batch, DeliveryState, EventType, Mint, Snapshot
from batchbell.core.results import Collecting, ResultsMode, ResultsState, Tally
from batchbell.storage import deleting
from batchbell.storage import events as outbox
from batchbell.storage.batches import joined_batches, save, to_batch
from batchbell.storage.engine import DELIVERIES, wake
from batchbell.storage.results import fenced, of, put_off
from batchbell.storage.schema import batches, deliveries, events
from batchbell.storage.stirring import join_soon, stir_for
from batchbell.storage.texts import storable


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
        trouble=None,
        lines=tally.lines,
        size=tally.size,
        tally=storable(msgspec.json.encode(tally).decode()),
        inline=None if inline is None else storable(inline),
        ended_at=now,
    )
    fenced(connection, held, there)
    batch = _note(connection, held, tally, seen)
    deleting.wish(connection, replace(held, batch=batch), tally, deletes, now=now)
    _let_go(connection, held.results.id, now=now)
    if not _was_told(connection, batch):
        outbox.record(connection, [(batch, EventType.RESULTS_READY)], mint=mint, now=now)
    stir_for(connection, [batch], now=now)
    join_soon(connection, batch, now=now)


def give_up(connection: Connection, held: Collecting, *, reason: str, now: float) -> None:
    """Write that the results cannot be had for now, and let go what waits for them.

    Raises LeaseLost.
    """
    put_off(connection, held, trouble=reason, next_at=None, now=now)
    _let_go(connection, held.results.id, now=now)
    stir_for(connection, [held.batch], now=now)
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
        batch, merged_outcome=rules.outcome(tally), snapshot=seen if seen else batch.snapshot
    )
    save(connection, [noted])
    return noted


def _was_told(connection: Connection, batch: Batch) -> bool:
    """Results that are merged anew were told of before."""
    told = exists().where(
        events.c.batch_key == batch.key,
        events.c.type == EventType.RESULTS_READY,
        events.c.generation == batch.generation,
    )
    return bool(connection.execute(select(told)).scalar())


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
