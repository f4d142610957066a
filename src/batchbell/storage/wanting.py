"""Results that somebody wants: written with the event that tells of them, and sent with it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import itemgetter

from sqlalchemy import Connection, select

from batchbell.core.model import Batch, Mint
from batchbell.core.travelling import Parcel, ResultsState
from batchbell.storage.bulk import among, insert_missing
from batchbell.storage.engine import RESULTS, wake
from batchbell.storage.jobs import results


@dataclass(frozen=True, slots=True)
class Wanted:
    """Results that somebody wants, and whether they have to be waited for."""

    id: str
    waits: bool


def want(
    connection: Connection, ended: Sequence[Batch], *, mint: Mint, now: float
) -> dict[int, Wanted]:
    """Have the results of these batches merged, unless that was asked for already.

    Returns them by the batch's key.
    """
    if not ended:
        return {}
    rows = [
        {
            "id": mint("res"),
            "project_id": batch.project_id,
            "batch_key": batch.key,
            "generation": batch.generation,
            "state": ResultsState.WAITING.value,
            "secret": mint("sec"),
            "due_at": now,
            "tries": 0,
            "created_at": now,
        }
        for batch in ended
    ]
    insert_missing(connection, results, sorted(rows, key=itemgetter("batch_key")))
    wake(connection, RESULTS)
    query = select(results.c.batch_key, results.c.id, results.c.state).where(
        among(connection, results.c.batch_key, [batch.key for batch in ended])
    )
    return {
        row.batch_key: Wanted(row.id, row.state == ResultsState.WAITING)
        for row in connection.execute(query.order_by(results.c.id))
    }


def parcels(connection: Connection, ids: Collection[str]) -> dict[str, Parcel]:
    """What may travel with webhooks, by the id of the results."""
    if not ids:
        return {}
    query = select(
        results.c.id,
        results.c.secret,
        results.c.state,
        results.c.lines,
        results.c.size,
        results.c.inline,
    ).where(among(connection, results.c.id, sorted(ids)))
    return {
        row.id: Parcel(
            id=row.id,
            secret=row.secret,
            state=ResultsState(row.state),
            lines=row.lines,
            size=row.size,
            inline=row.inline,
        )
        for row in connection.execute(query)
    }
