"""Endpoints whose owners limit how fast or in which order they are called.

Whoever claims for one holds its row meanwhile, so that no two processes spend the same token or
pass over the same head; who finds it held comes back later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from batchbell.core import rate
from batchbell.core.slots import MOST
from batchbell.storage.bulk import among, update_all
from batchbell.storage.schema import endpoints


@dataclass(frozen=True, slots=True)
class Limit:
    """What one of them allows, and from when on its next call may go."""

    rate: float | None
    rate_at: float | None
    ordered: bool

    def room(self, now: float) -> int:
        """How many deliveries may be claimed: no more than can be sent at once."""
        allowed = (
            MOST if self.rate is None else min(MOST, rate.tokens(self.rate, self.rate_at, now))
        )
        return min(1, allowed) if self.ordered else allowed


def take_limits(connection: Connection, ids: Sequence[str]) -> dict[str, Limit]:
    """The limits of those that nobody else claims for: held until the transaction ends."""
    if not ids:
        return {}
    columns = (endpoints.c.id, endpoints.c.rate_limit, endpoints.c.rate_at, endpoints.c.ordered)
    free = select(*columns).where(among(connection, endpoints.c.id, ids)).order_by(endpoints.c.id)
    rows = connection.execute(free.with_for_update(skip_locked=True, key_share=True))
    return {row.id: Limit(row.rate_limit, row.rate_at, row.ordered) for row in rows}


def spend(
    connection: Connection, limits: Mapping[str, Limit], taken: Mapping[str, int], *, now: float
) -> None:
    """Count what was claimed for these endpoints against their rates."""
    rows = [
        {"id": id, "rate_at": rate.after(limit.rate, limit.rate_at, now, taken=taken[id])}
        for id, limit in limits.items()
        if limit.rate is not None and taken.get(id)
    ]
    update_all(connection, endpoints, "id", rows)


def next_token_at(connection: Connection, ids: Sequence[str]) -> float | None:
    """When the first of these endpoints may be called again."""
    if not ids:
        return None
    first = select(func.min(endpoints.c.rate_at)).where(among(connection, endpoints.c.id, ids))
    at: float | None = connection.execute(first).scalar_one()
    return at
