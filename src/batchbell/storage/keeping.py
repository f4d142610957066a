"""When results are there: whoever waited for them is told, in the same transaction."""

from __future__ import annotations

import msgspec
from sqlalchemy import ColumnElement, Connection, exists, select, update

from batchbell.core.deletion import Deletes
from batchbell.core.model import DeliveryState, EventType, Mint
from batchbell.core.results import Collecting, ResultsMode, ResultsState, Tally
from batchbell.storage import deleting
from batchbell.storage import events as outbox
from batchbell.storage.engine import DELIVERIES, wake
from batchbell.storage.results import fenced, of
from batchbell.storage.schema import deliveries, events
from batchbell.storage.stirring import stir_for
from batchbell.storage.texts import storable


def keep(
    connection: Connection,
    held: Collecting,
    tally: Tally,
    *,
    inline: str | None,
    deletes: Deletes = Deletes.NONE,
    mint: Mint,
    now: float,
) -> None:
    """Write that the results are there, and let go what waits for them. Raises LeaseLost.

    `inline` is kept only where a webhook is to carry the lines. `deletes` says which of the
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
    deleting.wish(connection, held, tally, deletes, now=now)
    _let_go(connection, held.results.id, now=now)
    outbox.record(connection, [(held.batch, EventType.RESULTS_READY)], mint=mint, now=now)
    stir_for(connection, [held.batch], now=now)


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
