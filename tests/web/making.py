"""What tests of the HTTP surface make: batches that end, and deliveries that were tried."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2

from batchbell.core.lifecycle import settle
from batchbell.core.model import Account, Counts, Mint, Outcome, Sighting, Snapshot, Status
from batchbell.providers.protocol import Provider
from batchbell.storage import batches, queue
from batchbell.storage.queue import Claim, Tried
from batchbell.web.app import App
from batchbell.web.call import Context
from batchbell.workers.seeker import Seeker

from ..conftest import Clock

HOOK = "http://127.0.0.1:9/hook"


@dataclass
class Served:
    """A server that listens, and what a test may turn while it does."""

    url: str
    app: App
    context: Context
    http: httpx2.AsyncClient
    accounts: dict[str, Account]
    connections: set[Any]
    """Those of callers that are open."""
    workers: dict[str, bool] = field(default_factory=dict)
    key_changes: list[None] = field(default_factory=list)

    @property
    def account_id(self) -> str:
        return self.accounts["openai"].id

    def declare(self, **changes: Any) -> None:
        """Have the account `openai` declared otherwise."""
        (own,) = self.context.declared
        self.context.declared._known = {own.name: replace(own, **changes)}

    async def watch(self, batch_id: str, url: str = HOOK, **more: Any) -> dict[str, Any]:
        body = {"batch_id": batch_id, "url": url, **more}
        answer = await self.http.post("/v1/watches", json=body)
        assert answer.status_code in (200, 201), answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def see(self, *sightings: Sighting, account_id: str | None = None) -> None:
        """As if a sweep had brought this."""
        context = self.context
        await context.store.write(
            batches.observe,
            account_id=account_id or self.account_id,
            sightings=sightings,
            mint=context.mint,
            now=context.clock(),
        )

    async def claim(self) -> Claim:
        """As a dispatcher would, for a minute."""
        return await self.context.store.write(
            queue.claim_due,
            rooms={},
            room=100,
            limit=100,
            now=self.context.clock(),
            lease_seconds=60.0,
            token=self.context.mint("lease"),
        )

    async def try_all(self, outcome: Outcome) -> Sequence[str]:
        """Claim what is due and settle it with this outcome; returns the delivery ids."""
        claim, now = await self.claim(), self.context.clock()
        tried = [
            Tried(one, outcome, settle(outcome, attempt=one.attempt, now=now, rand=0.0))
            for one in claim.deliveries
        ]
        await self.context.store.write(queue.settle, tried, mint=self.context.mint, now=now)
        return [one.id for one in claim.deliveries]


@asynccontextmanager
async def seeking(
    served: Served, way: Provider, *, clock: Clock, mint: Mint
) -> AsyncIterator[Seeker]:
    """A seeker as the workers run it, woken by the database; time passes while it waits."""
    context = served.context
    seeker = Seeker(context.store, lambda _: way, clock=clock, mint=mint, metrics=context.metrics)

    async def run() -> None:
        while True:
            if not await seeker.step():
                await seeker.ended()
                await seeker.signal.wait(0.05)
                clock.advance(1.0)

    running = asyncio.create_task(run())
    yield seeker
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await seeker.close()


def a_snapshot(
    id: str, status: Status = Status.COMPLETED, *, counts: tuple[int, int, int] = (3, 3, 0)
) -> Snapshot:
    total, completed, failed = counts
    return Snapshot(
        id=id,
        provider_status=status.value,
        status=status,
        counts=Counts(total=total, completed=completed, failed=failed),
        endpoint="/v1/chat/completions",
        model="gpt-5-mini",
        completion_window="24h",
        input_file_id="file-in",
        output_file_id="file-out" if completed else None,
        error_file_id="file-err" if failed else None,
        timestamps={"created_at": 1_789_990_000, f"{status.value}_at": 1_789_999_000},
        metadata={"night": "yes"},
        usage={
            "input_tokens": 10,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 15,
        },
    )
