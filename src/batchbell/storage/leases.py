"""Tables of work that is due and held under a lease: results to merge, submissions to go on with.

Such a table has `account_id`, `due_at`, `lease_until`, and an index of its `open` rows by account
and time.

Deliveries have a rule of their own, as there are so many of them: what stands in an index is costly
to change. A lease moves `due_at` to its end; or it leaves `due_at` alone and writes its end to
`lease_until`, which means nothing once the token is gone.
"""

from __future__ import annotations

from sqlalchemy import Connection, Table, func, select, text

from batchbell.core.turns import Waiting


def claimable(name: str) -> str:
    """That a pending delivery is due by `:now` and nobody has a lease of it, in SQL."""
    run_out = f"coalesce({name}.lease_until, 0) <= :now"
    return f"{name}.due_at <= :now AND ({name}.lease_token IS NULL OR {run_out})"


def due_next(name: str) -> str:
    """When a pending delivery may be claimed, in SQL: when it is due, or its lease has run out."""
    later = f"{name}.lease_token IS NOT NULL AND {name}.lease_until > {name}.due_at"
    return f"CASE WHEN {later} THEN {name}.lease_until ELSE {name}.due_at END"


class Leased:
    """One such table. `open` is the condition, in SQL, that its partial indexes name."""

    def __init__(self, table: Table, *, open: str) -> None:
        self._ring = text(RING.format(table=table.name, open=open))
        free = select(table.c.due_at).where(text(open), table.c.lease_until.is_(None))
        self._free = free.order_by(table.c.due_at).limit(1)
        held = select(func.min(table.c.lease_until))
        self._run_out = held.where(table.c.lease_until.isnot(None))

    def waiting(self, connection: Connection) -> list[Waiting]:
        """The accounts with work, and when each may next be claimed from.

        Costs as much as there are such accounts, however much each has to do.
        """
        return [Waiting(**row) for row in connection.execute(self._ring).mappings()]

    def next_due(self, connection: Connection) -> float | None:
        """When there is next something to claim: work that is due, or a lease that runs out."""
        times = [connection.execute(query).scalar() for query in (self._free, self._run_out)]
        return min((time for time in times if time is not None), default=None)


RING = """
WITH RECURSIVE ring(id) AS (
  SELECT (SELECT min(account_id) FROM {table} WHERE {open})
  UNION ALL
  SELECT (SELECT min(j.account_id) FROM {table} j WHERE {open} AND j.account_id > ring.id)
  FROM ring WHERE ring.id IS NOT NULL),
due(id, free_at, lease_until) AS (
  SELECT ring.id,
    (SELECT j.due_at FROM {table} j
     WHERE j.account_id = ring.id AND {open} AND j.lease_until IS NULL
     ORDER BY j.due_at LIMIT 1),
    (SELECT min(j.lease_until) FROM {table} j
     WHERE j.account_id = ring.id AND j.lease_until IS NOT NULL)
  FROM ring WHERE ring.id IS NOT NULL)
SELECT due.id AS account_id, coalesce(a.project_id, '') AS project_id,
  CASE WHEN due.free_at < due.lease_until THEN due.free_at
       ELSE coalesce(due.lease_until, due.free_at) END AS due_at
FROM due LEFT JOIN accounts a ON a.id = due.id
"""
