"""A provider that has no files: requests go with the call, and results have one address.

So do Anthropic and Gemini. The workers know of it only what the port says.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.workers.conftest import House
from tests.workers.submitting import Counter, counting, states

from batchbell.core.deletion import Deletes
from batchbell.core.model import Snapshot
from batchbell.core.results import Arrived
from batchbell.core.twins import Marks
from batchbell.providers import Order, Page, Provider
from batchbell.storage import deletions
from batchbell.workers.cleaner import Cleaner

HOST = "https://host.example/results"


class OddLines:
    """Its results say `key` and `answer`."""

    def request(self, line: bytes) -> bytes:
        return line

    def answer(self, line: bytes) -> bytes:
        found = json.loads(line)
        response = {"status_code": 200, "body": found["answer"]}
        whole = {"custom_id": found["key"], "response": response, "error": None}
        return json.dumps(whole).encode()


class WithoutFiles:
    """The sandbox's provider, as one that has no files."""

    def __init__(self, inner: Provider) -> None:
        self.inner = inner
        self.profile = inner.profile
        self.lines = OddLines()
        self.deleted: list[str] = []

    async def list_page(
        self,
        cursor: str | None = None,
        *,
        open_only: bool = False,
        known: Mapping[int, str] | None = None,
    ) -> Page:
        page = await self.inner.list_page(cursor, open_only=open_only, known=known)
        return replace(page, batches=tuple(map(shown, page.batches)))

    async def retrieve(self, batch_id: str) -> Snapshot:
        return shown(await self.inner.retrieve(batch_id))

    async def cancel(self, batch_id: str) -> Snapshot:
        return shown(await self.inner.cancel(batch_id))

    async def upload(self, requests: Path, **_: Any) -> None:
        return None

    async def submit(self, order: Order) -> Snapshot:
        assert order.file is None
        file = await self.inner.upload(order.requests, name="requests.jsonl")
        return shown(await self.inner.submit(replace(order, file=file)))

    async def find(self, marks: Marks) -> tuple[list[Snapshot], bool]:
        assert marks.input_file_id is None
        found, whole = await self.inner.find(marks)
        return [shown(one) for one in found], whole

    async def results(self, reference: str, target: Path, **how: Any) -> Arrived:
        host, _, id = reference.rpartition("/")
        assert host == HOST
        await self.inner.results(id, target, **{**how, "plain": True})
        lines = map(json.loads, target.read_bytes().splitlines())  # noqa: ASYNC240
        odd = [{"key": one["custom_id"], "answer": one["response"]["body"]} for one in lines]
        target.write_bytes(b"\n".join(json.dumps(one).encode() for one in odd))  # noqa: ASYNC240
        return Arrived()

    async def delete(self, reference: str) -> None:
        self.deleted.append(reference)


def shown(seen: Snapshot) -> Snapshot:
    ref = seen.output_file_id and f"{HOST}/{seen.output_file_id}"
    without = {"input_file_id": None, "output_file_id": None, "error_file_id": None}
    return structs.replace(seen, **without, results_ref=ref)


@pytest.fixture
async def counter(house: House, tmp_path: Path) -> AsyncIterator[Counter]:
    house.watcher.provider = WithoutFiles(house.watcher.provider)
    async with counting(house, tmp_path, deletes=Deletes.ALL) as counter:
        yield counter


async def test_a_submission_goes_there_and_back(counter: Counter, house: House) -> None:
    id = await counter.submit(6)
    await counter.step()
    assert states((await counter.of(id)).parts) == ["running"] * 2
    await counter.end(await counter.running(id))
    assert [line["custom_id"] for line in await counter.lines(id)] == [f"r{n}" for n in range(6)]
    tally = (await counter.results(id)).tally
    assert tally is not None
    assert (tally.succeeded, tally.failed, tally.in_input_order) == (6, 0, True)
    assert sum(used.output_tokens for used in tally.usage.values()) > 0


async def test_a_lost_answer_is_found_by_the_tag_alone(counter: Counter, house: House) -> None:
    house.provider.faults.add("reset", route="create", carried_out=True)
    id = await counter.submit(4)
    await counter.step()
    assert states((await counter.of(id)).parts) == ["submitting"]
    while states((await counter.of(id)).parts) == ["submitting"]:
        await counter.wait()
    assert len(counter.created()) == 1


async def test_its_results_are_deleted_by_their_reference(counter: Counter, house: House) -> None:
    id = house.provider.add_batch(total=3)
    await house.register(id)
    await house.sweep()
    await counter.collector.step()
    house.provider.finish(id, "completed")
    await house.sweep()
    await counter.step()
    way: Any = house.watcher.provider
    cleaner = Cleaner(
        house.store,
        counter.results_store,
        lambda _: way,
        clock=house.clock,
        mint=house.mint,
        rand=lambda: 0.0,
        metrics=house.metrics,
    )
    house.clock.now = max(house.clock(), await house.read(deletions.next_due) or 0.0)
    await cleaner.step()
    assert [reference.rpartition("/")[0] for reference in way.deleted] == [HOST]
