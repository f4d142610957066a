"""Forgetting old attempts: step by step along their primary key, with no index of its own.

Ids sort by time, so attempts made before a time lie before the id that belongs to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, tuple_

from batchbell.core.ids import first_id
from batchbell.storage.bulk import among_pairs
from batchbell.storage.schema import attempts

Cursor = tuple[str, int]
START: Cursor = ("", 0)


@dataclass(frozen=True, slots=True)
class Aged:
    """How many attempts a step has deleted, and where the next one goes on."""

    deleted: int
    cursor: Cursor


def forget_attempts(
    connection: Connection, *, before: float, after: Cursor = START, limit: int
) -> Aged:
    """Delete those of the next `limit` attempts that were made before a time.

    What a young attempt of an old delivery leaves in the way is walked over. At the end the
    cursor is `START` again. Attempts that another process has locked are left to it.
    """
    place = tuple_(attempts.c.delivery_id, attempts.c.number)
    step = (
        select(attempts.c.delivery_id, attempts.c.number, attempts.c.started_at)
        .where(place > after, attempts.c.delivery_id < first_id("dlv", at=before))
        .order_by(attempts.c.delivery_id, attempts.c.number)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = connection.execute(step).all()
    old = [(row.delivery_id, row.number) for row in rows if row.started_at < before]
    if old:
        columns = (attempts.c.delivery_id, attempts.c.number)
        connection.execute(delete(attempts).where(among_pairs(connection, columns, old)))
    cursor = (rows[-1].delivery_id, rows[-1].number) if len(rows) == limit else START
    return Aged(len(old), cursor)
