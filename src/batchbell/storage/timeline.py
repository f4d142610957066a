"""The story of one batch, read from all tables that have a part of it."""

from __future__ import annotations

from sqlalchemy import Connection

from batchbell.core.timeline import Sent, Timeline
from batchbell.storage import deliveries, events, results, watches
from batchbell.storage.batches import get_batch

WATCHES_MOST = 100
EVENTS_MOST = 100
DELIVERIES_MOST = 100
ATTEMPTS_MOST = 20
"""Of each delivery, the last ones."""


def read_timeline(
    connection: Connection,
    project_id: str,
    batch_id: str,
    *,
    account_id: str | None = None,
    kept_since: float = 0.0,
) -> Timeline:
    """All that is kept of a batch of the project, of the newest watches, events and deliveries.

    `kept_since` is as for `list_attempts`. Raises NotFound, and AmbiguousBatch where several
    accounts have a batch of this id.
    """
    batch = get_batch(connection, project_id, batch_id, account_id=account_id)
    watching = watches.of_key(connection, batch.key, limit=WATCHES_MOST)
    happened = events.of_key(connection, batch.key, limit=EVENTS_MOST)
    made = deliveries.of_key(connection, batch.key, limit=DELIVERIES_MOST)
    tried = deliveries.attempts_of(connection, made.items, kept_since=kept_since)
    more = {
        "watches": watching.has_more,
        "events": happened.has_more,
        "deliveries": made.has_more,
        "attempts": any(len(one) > ATTEMPTS_MOST for one in tried.values()),
    }
    return Timeline(
        batch=batch,
        watches=watching.items,
        results=results.every_of_key(connection, batch.key),
        events=happened.items,
        sent=[Sent(delivery=one, attempts=tried[one.id][-ATTEMPTS_MOST:]) for one in made.items],
        left_out=[name for name, is_more in more.items() if is_more],
    )
