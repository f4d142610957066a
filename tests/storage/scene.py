"""A small stage: registers, sees, claims and settles with as few words as a test needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from batchbell.core import lifecycle
from batchbell.core.model import (
    DEFAULT_PROJECT,
    Account,
    Claimed,
    Counts,
    Delivery,
    Event,
    Mint,
    Missing,
    Outcome,
    Sighting,
    Snapshot,
    Status,
)
from batchbell.storage import batches, deliveries, events, queue, watches
from batchbell.storage.batches import Change
from batchbell.storage.engine import Store
from batchbell.storage.queue import START, Claim, Place, Tried
from batchbell.storage.watches import Registered, Registration
from tests.conftest import Clock

URL = "https://receiver.example/hook"
OK = Outcome(status=200, started_at=1.0, duration_ms=3.0)
BROKEN = Outcome(status=500, started_at=1.0, duration_ms=3.0)
GONE = Outcome(status=410, started_at=1.0, duration_ms=3.0)


def snapshot(id: str, status: Status | None = Status.COMPLETED, **changes: Any) -> Snapshot:
    values: dict[str, Any] = {
        "id": id,
        "provider_status": status.value if status else "dreaming",
        "status": status,
        "counts": Counts(total=3, completed=2, failed=1),
        "timestamps": {"created_at": 1},
    }
    return Snapshot(**(values | changes))


@dataclass(frozen=True)
class Scene:
    store: Store
    account: Account
    mint: Mint
    clock: Clock

    def wanted(self, *ids: str, url: str = URL, **how: Any) -> list[Registration]:
        return [Registration(account_id=self.account.id, batch_id=id, url=url, **how) for id in ids]

    async def register(self, *ids: str, url: str = URL, **how: Any) -> list[Registered]:
        return await self.register_all(self.wanted(*ids, url=url, **how))

    async def register_all(self, wanted: Sequence[Registration]) -> list[Registered]:
        return await self.store.write(
            watches.register, DEFAULT_PROJECT, wanted, mint=self.mint, now=self.clock()
        )

    async def see(self, *sightings: Sighting) -> list[Change]:
        return await self.store.write(self.record, *sightings)

    def record(self, connection: Connection, *sightings: Sighting) -> list[Change]:
        """The same in a transaction that goes on."""
        return batches.observe(
            connection,
            account_id=self.account.id,
            sightings=sightings,
            mint=self.mint,
            now=self.clock(),
        )

    async def end(self, *ids: str, status: Status = Status.COMPLETED) -> None:
        await self.see(*(snapshot(id, status) for id in ids))

    async def lose(self, id: str) -> None:
        """As many 404s as it takes, far enough apart."""
        for _ in range(lifecycle.LOST_ALIVE_MISSES):
            await self.see(Missing(id))
            self.clock.advance(lifecycle.LOST_ALIVE_AFTER_SECONDS)

    async def due(self, *ids: str, url: str = URL) -> None:
        """One delivery for each batch, waiting to be sent to `url`."""
        await self.register(*ids, url=url)
        await self.end(*ids)

    async def claim(
        self,
        *,
        limit: int = 100,
        room: int = 100,
        rooms: Mapping[str, int] | None = None,
        after: Place = START,
        token: str | None = None,
    ) -> Claim:
        return await self.store.write(
            queue.claim_due,
            after=after,
            rooms=rooms or {},
            room=room,
            limit=limit,
            now=self.clock(),
            lease_seconds=60.0,
            token=token or self.mint("lease"),
        )

    async def settle(self, claimed: Sequence[Claimed], outcome: Outcome = OK) -> set[str]:
        settled = await self.store.write(
            queue.settle,
            [self.tried(one, outcome) for one in claimed],
            mint=self.mint,
            now=self.clock(),
        )
        return settled.written

    def tried(self, claimed: Claimed, outcome: Outcome = OK) -> Tried:
        attempt = claimed.attempt - claimed.first_attempt_base
        decided = lifecycle.settle(outcome, attempt=attempt, now=self.clock(), rand=0.0)
        return Tried(claimed, outcome, decided)

    async def deliveries(self, **how: Any) -> list[Delivery]:
        """All of them, the oldest first."""
        page = await self.store.read(
            deliveries.list_deliveries, DEFAULT_PROJECT, limit=10_000, **how
        )
        return list(reversed(page.items))

    async def events(self, **how: Any) -> list[Event]:
        """All of them, the oldest first."""
        page = await self.store.read(events.list_events, DEFAULT_PROJECT, limit=10_000, **how)
        return list(reversed(page.items))
