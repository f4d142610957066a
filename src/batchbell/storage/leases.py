"""Leases that a dead process left behind."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from batchbell.storage.jobs import creations, deletions, replays, results, submissions
from batchbell.storage.schema import accounts, deliveries, endpoints


def release_all(connection: Connection, *, now: float) -> int:
    """End every lease, probes among them, and return how many deliveries there were.

    Only for SQLite, at start: the lock on the file proves that whoever held them is dead. On
    PostgreSQL the holders may live, and a lease ends by its time.
    """
    connection.execute(
        update(accounts)
        .where(accounts.c.lease_token.isnot(None))
        .values(lease_token=None, lease_until=None, due_at=now)
    )
    for jobs in (replays, results, deletions, submissions):
        held = update(jobs).where(jobs.c.lease_token.isnot(None))
        connection.execute(held.values(lease_token=None, lease_until=None, due_at=now))
    asked = update(creations).where(creations.c.state == "asked")
    connection.execute(asked.values(due_at=now))
    leased = deliveries.c.lease_token.isnot(None)
    probed = endpoints.c.id.in_(select(deliveries.c.endpoint_id).where(leased))
    connection.execute(
        update(endpoints).where(endpoints.c.probe_at.isnot(None), probed).values(probe_at=now)
    )
    left = update(deliveries).where(leased)
    return connection.execute(left.values(lease_token=None, due_at=now)).rowcount
