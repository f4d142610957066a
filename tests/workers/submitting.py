"""Submissions whose workers are stepped by hand."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.workers.conftest import House

from batchbell.core.deletion import Deletes
from batchbell.core.limits import Limits
from batchbell.core.model import DEFAULT_PROJECT, Mint, Snapshot
from batchbell.core.results import Results
from batchbell.core.submission import Expiry, Part, PartState, Submission, new_name
from batchbell.files.preflight import prepare
from batchbell.files.results_store import Folder, ResultsStore
from batchbell.providers.protocol import Provider
from batchbell.storage import parts, results, submissions
from batchbell.storage.engine import Store
from batchbell.storage.submissions import Asked, NewPart
from batchbell.storage.watches import Registration
from batchbell.workers.collector import Collector
from batchbell.workers.submitter import Submitter

LINES_OF_A_PART = 4


def requests(number: int, model: str = "gpt-5-mini") -> list[dict[str, Any]]:
    return [
        {
            "custom_id": f"r{n}",
            "method": "POST",
            "url": "/v1/responses",
            "body": {"model": model, "input": f"question {n}"},
        }
        for n in range(number)
    ]


async def hand_over(
    store: Store,
    results_store: ResultsStore,
    account_id: str,
    number: int,
    *,
    folder: Path,
    url: str | None,
    mint: Mint,
    now: float,
    ends: bytes = b"\n",
    **how: Any,
) -> str:
    """As the HTTP surface does, but for four requests in a part; returns the submission's id."""
    id = mint("sub")
    text = b"".join(json.dumps(one).encode() + ends for one in requests(number))
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240 - a test's own folder
    made = prepare(io.BytesIO(text), folder, limits=Limits(lines=LINES_OF_A_PART))
    parts = []
    for part in made.parts:
        new = NewPart(mint("prt"), part.lines, part.size, part.tokens, part.numbering.runs)
        await results_store.put(new_name(DEFAULT_PROJECT, new.id), part.path)
        parts.append(new)
    asked = Asked(
        id=id,
        account_id=account_id,
        endpoint="/v1/responses",
        model=made.model,
        parts=parts,
        watch=Registration(account_id=account_id, batch_id=id, url=url) if url else None,
        **how,
    )
    await store.write(submissions.create, DEFAULT_PROJECT, asked, mint=mint, now=now)
    return id


@dataclass
class Counter:
    """Where submissions are handed in and collected."""

    house: House
    results_store: Folder
    submitter: Submitter
    collector: Collector
    folder: Path
    providers: dict[str, Provider] = field(default_factory=dict)
    """By account, where it is not the house's."""

    async def submit(
        self,
        number: int = 10,
        *,
        path: str | None = "/hook",
        account_id: str | None = None,
        **how: Any,
    ) -> str:
        """Ask for so many requests to be answered, four in a part."""
        house = self.house
        url = path and house.receiver.url(path)
        return await hand_over(
            house.store,
            self.results_store,
            account_id or house.account.id,
            number,
            folder=self.folder,
            url=url,
            mint=house.mint,
            now=house.clock(),
            **how,
        )

    async def step(self) -> None:
        """Whatever is due of submissions and of results, to its end."""
        while await self._submitted() or await self.collector.step():
            await self.submitter.ended()
            await self.collector.ended()

    async def _submitted(self) -> bool:
        return await self.submitter.step()

    async def wait(self) -> None:
        """Let time pass until a submission is due, and go on with it."""
        due = await self.house.read(parts.next_due)
        assert due is not None
        self.house.clock.now = max(self.house.clock.now, due)
        await self.step()

    async def of(self, id: str) -> Submission:
        return await self.house.read(submissions.get_submission, DEFAULT_PROJECT, id)

    async def running(self, id: str) -> list[str]:
        """The provider's batches that run for it, in order."""
        parts = (await self.of(id)).parts
        return [p.batch.id for p in parts if p.state is PartState.RUNNING and p.batch]

    async def end(self, batch_ids: Sequence[str], status: str = "completed", **how: Any) -> None:
        """End these at the provider, and take it in."""
        for batch_id in batch_ids:
            self.house.provider.finish(batch_id, status, **how)
        await self.house.sweep()
        await self.step()

    async def results(self, id: str) -> Results:
        return await self.house.read(results.of_batch, DEFAULT_PROJECT, id)

    async def lines(self, id: str) -> list[dict[str, Any]]:
        found = await self.results(id)
        whole = b"".join([chunk async for chunk in self.results_store.read(found.name)])
        return [json.loads(line) for line in whole.splitlines()]

    def created(self) -> list[dict[str, Any]]:
        """All batches at the provider, oldest first."""
        rows, _ = self.house.provider.page(limit=1000)
        return list(reversed(rows))


def states(parts: Sequence[Part]) -> list[str]:
    return [part.state.value for part in parts]


def snapshot_of(found: Submission) -> Snapshot:
    assert found.batch.snapshot is not None
    return found.batch.snapshot


@asynccontextmanager
async def counting(
    house: House,
    folder: Path,
    *,
    deletes: Deletes = Deletes.NONE,
    expiry: Expiry | None = None,
) -> AsyncIterator[Counter]:
    """A counter whose files lie in `folder`."""
    results_store = Folder(folder / "results")
    chance: dict[str, Any] = {
        "clock": house.clock,
        "mint": house.mint,
        "rand": lambda: 0.0,
        "metrics": house.metrics,
        "scratch": folder / "scratch",
    }
    way = house.watcher.provider
    rest: dict[str, Any] = {"inline_max_bytes": 10_000, "retention_days": 30.0}
    collector = Collector(
        house.store, results_store, lambda _: way, deletes=deletes, **rest, **chance
    )
    providers: dict[str, Provider] = {}
    submitter = Submitter(
        house.store,
        results_store,
        lambda id: providers.get(id, way),
        expiry=lambda _: expiry or Expiry(),
        **chance,
    )
    yield Counter(house, results_store, submitter, collector, folder / "parts", providers)
    await submitter.close()
    await collector.close()
