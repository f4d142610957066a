"""The joined results of submissions, whatever has become of the files that they are made of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.workers.conftest import House
from tests.workers.submitting import Counter, counting

from batchbell.core.model import DEFAULT_PROJECT
from batchbell.core.results import AGAIN_SECONDS, Results, ResultsState
from batchbell.sandbox import problem
from batchbell.storage import merges, results


@pytest.fixture
async def counter(house: House, tmp_path: Path) -> AsyncIterator[Counter]:
    async with counting(house, tmp_path) as counter:
        yield counter


async def ended(counter: Counter) -> str:
    """A submission of three parts: one tried again, one expired as a whole, and one rejected."""
    id = await counter.submit(11, retry_missing=1)
    await counter.step()
    first, second, third = await counter.running(id)
    await counter.end([third], "failed", problems=[problem("invalid_url", "No.", line=1)])
    await counter.end([first], "expired", completed=1)
    await counter.end([second], "expired", completed=0)
    again = await counter.running(id)
    await counter.end(again[:1], failed=1)
    await counter.end(again[1:], "expired", completed=0)
    return id


def clear_shelf(counter: Counter, *, requests: bool = False) -> None:
    for file in (counter.results_store.root / DEFAULT_PROJECT).iterdir():
        if requests or "requests" not in file.name:
            file.unlink()


async def ask_again(counter: Counter, id: str) -> None:
    """As a GET, a POST or a link does."""
    counter.house.clock.advance(AGAIN_SECONDS)
    now, found = counter.house.clock(), await counter.results(id)
    assert await counter.house.store.write(results.ask_again, [found.id], now=now, missing=True)
    await counter.step()


async def settled(counter: Counter, id: str) -> Results:
    """Once no more is tried, however long that takes."""
    for _ in range(500):
        if (found := await counter.results(id)).state is not ResultsState.WAITING:
            return found
        due = await counter.house.read(merges.next_due)
        assert due is not None
        counter.house.clock.now = max(counter.house.clock.now, due)
        await counter.step()
    raise AssertionError("it is tried without an end")


async def test_joined_results_that_are_gone_are_made_anew_from_the_providers_files(
    counter: Counter,
) -> None:
    id = await ended(counter)
    before, tally = await counter.lines(id), (await counter.results(id)).tally
    assert len(before) == 11
    clear_shelf(counter)
    await ask_again(counter, id)
    found = await counter.results(id)
    assert (found.state, found.tally) == (ResultsState.READY, tally)
    assert await counter.lines(id) == before
    counter.house.clock.advance(31 * 86_400)
    await counter.step()
    assert not [*(counter.results_store.root / DEFAULT_PROJECT).iterdir()], (
        "no requests are left either"
    )


@pytest.mark.databases("sqlite")
async def test_parts_that_are_gone_at_the_provider_too_spoil_only_themselves(
    counter: Counter,
) -> None:
    id = await ended(counter)
    before = await counter.lines(id)
    clear_shelf(counter, requests=True)
    part = (await counter.of(id)).parts[0]
    assert part.batch is not None
    provider = counter.house.provider
    provider.delete_file(provider.retrieve(part.batch.id)["output_file_id"])
    await ask_again(counter, id)
    found = await settled(counter, id)
    assert (found.state, found.tries) == (ResultsState.READY, 2)
    kept = await counter.lines(id)
    assert len(kept) == 7, "all but the one answer of the first part, and the part without any"
    assert [line for line in before if line in kept] == kept
    assert found.tally is not None
    notes = "\n".join(found.tally.notes)
    assert f"batch {part.batch.id} could not be fetched: No such File" in notes
    assert "part 3 (3 lines) are not kept any more" in notes


@pytest.mark.databases("sqlite")
async def test_each_time_somebody_asks_parts_that_could_not_be_had_get_another_chance(
    counter: Counter,
) -> None:
    id = await counter.submit(8)
    await counter.step()
    await counter.end(await counter.running(id))
    clear_shelf(counter)
    faults = counter.house.provider.faults
    faults.add("status", status=404, route="content", times=None)
    await ask_again(counter, id)
    found = await settled(counter, id)
    assert found.state is ResultsState.FAILED
    assert "No answers can be had" in str(found.reason)
    faults.clear()
    await ask_again(counter, id)
    assert (await settled(counter, id)).state is ResultsState.READY
    assert len(await counter.lines(id)) == 8
