"""Collecting under each setting, and cleaning afterwards, stepped by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.workers.conftest import House
from tests.workers.submitting import requests

from batchbell.core.deletion import Deletes, Deletion
from batchbell.core.model import DEFAULT_PROJECT, Batch
from batchbell.core.results import Results
from batchbell.files.results_store import Folder
from batchbell.sandbox.answers import ApiError
from batchbell.storage import batches, deletions, results
from batchbell.workers.cleaner import Cleaner
from batchbell.workers.collector import Collector


@dataclass
class Yard:
    """A collector and a cleaner that are stepped by hand."""

    house: House
    results_store: Folder
    cleaner: Cleaner
    collector_for: Callable[[Deletes], Collector]

    def upload(self, number: int = 10) -> str:
        content = "\n".join(map(json.dumps, requests(number))).encode()
        file = self.house.provider.upload(content, filename="in.jsonl", purpose="batch")
        return str(file["id"])

    async def running(self, input_file_id: str) -> str:
        """A batch of this input that somebody watches, and that was seen."""
        id = await self.registered(input_file_id)
        await self.house.sweep()
        return id

    async def registered(self, input_file_id: str) -> str:
        wish = {"input_file_id": input_file_id, "endpoint": "/v1/responses"}
        created = self.house.provider.create({**wish, "completion_window": "24h"})
        await self.house.register(created["id"])
        return str(created["id"])

    async def collected(
        self, input_file_id: str, deletes: Deletes = Deletes.ALL, **how: Any
    ) -> str:
        """A batch of this input whose results were merged under the setting."""
        id = await self.running(input_file_id)
        await self.end(id, deletes, **how)
        return id

    async def end(self, id: str, deletes: Deletes = Deletes.ALL, **how: Any) -> None:
        self.house.provider.finish(id, "completed", **how)
        await self.house.sweep()
        await self.collect(deletes)

    async def collect(self, deletes: Deletes) -> None:
        collector = self.collector_for(deletes)
        while await collector.step() or collector.under_way:
            await collector.ended()

    async def clean(self) -> None:
        """Whatever is due now."""
        while await self.cleaner.step():
            pass

    async def clean_later(self) -> None:
        """Let time pass until something is due, and do it."""
        due = await self.house.read(deletions.next_due)
        assert due is not None
        assert due > self.house.clock(), "it was put off"
        self.house.clock.now = due
        await self.clean()

    async def fate(self, id: str) -> Deletion:
        found = (await self.house.read(deletions.shown, await self.batch(id)))[1]
        assert found is not None
        return found

    async def batch(self, id: str) -> Batch:
        return await self.house.read(batches.get_batch, DEFAULT_PROJECT, id)

    async def results(self, id: str) -> Results:
        return await self.house.read(results.of_batch, DEFAULT_PROJECT, id)

    async def answers(self, id: str) -> list[str]:
        """The provider's output and error file of a batch."""
        seen = (await self.batch(id)).snapshot
        assert seen is not None
        return [file for file in (seen.output_file_id, seen.error_file_id) if file]

    def there(self, *file_ids: str) -> list[bool]:
        return [self._is_there(id) for id in file_ids]

    def _is_there(self, file_id: str) -> bool:
        try:
            self.house.provider.file(file_id)
        except ApiError:
            return False
        return True

    async def lines(self, id: str) -> int:
        found = await self.results(id)
        whole = b"".join([chunk async for chunk in self.results_store.read(found.name)])
        return len(whole.splitlines())
