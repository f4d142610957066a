"""Rows of a list that say what is known already are not read again, and nothing is missed by it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.workers.conftest import House

from batchbell.core.model import DEFAULT_PROJECT, Batch, Counts, Status
from batchbell.providers.protocol import Page
from batchbell.storage import batches, events


@pytest.fixture
def pages(house: House, monkeypatch: pytest.MonkeyPatch) -> list[Page]:
    """Every page that the watcher has got."""
    seen: list[Page] = []
    list_page = house.watcher.provider.list_page

    async def listing(*args, **kwargs) -> Page:
        seen.append(await list_page(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(house.watcher.provider, "list_page", listing)
    return seen


async def known(house: House, number: int = 3) -> list[str]:
    """So many open batches whose rows have been seen to say what is known."""
    ids: list[str] = house.provider.add_batches(number)
    await house.register(*ids)
    for _ in range(3):  # the third one holds the list against one batch
        await house.sweep()
    return ids


async def batch_of(house: House, id: str) -> Batch:
    return await house.read(batches.get_batch, DEFAULT_PROJECT, id)


async def test_only_rows_that_differ_are_read(house: House, pages: list[Page]) -> None:
    ids = await known(house)
    pages.clear()
    await house.sweep()
    assert (pages[0].batches, set(pages[0].unchanged)) == ((), set(ids))
    house.provider.finish(ids[1], "completed")
    await house.sweep()
    assert [batch.id for batch in pages[1].batches] == [ids[1]]
    assert set(pages[1].unchanged) == {ids[0], ids[2]}
    page = await house.read(events.list_events, DEFAULT_PROJECT, limit=9)
    assert [event.batch_id for event in page.items] == [ids[1]]


async def test_a_row_that_was_written_is_not_read_again(house: House, pages: list[Page]) -> None:
    ids = house.provider.add_batches(3)
    await house.register(*ids)
    await house.sweep()
    assert {batch.id for batch in pages[0].batches} == set(ids)
    await house.sweep()
    assert (pages[1].batches, set(pages[1].unchanged)) == ((), set(ids))


async def test_a_row_is_read_where_more_is_known_than_it_said(
    house: House, pages: list[Page]
) -> None:
    id, *_ = await known(house)
    was = (await batch_of(house, id)).snapshot
    assert was is not None
    ahead = replace(was, counts=Counts(total=9, completed=5, failed=0))
    how = {"account_id": house.account.id, "mint": house.mint, "now": house.clock()}
    await house.store.write(batches.observe, sightings=[ahead], **how)
    pages.clear()
    await house.sweep()
    assert pages[0].batches == (was,)
    assert (await batch_of(house, id)).snapshot == was


async def test_a_row_is_read_where_a_batch_is_in_doubt(house: House, pages: list[Page]) -> None:
    """It ends the doubt, though it says nothing new."""
    id, *_ = await known(house)
    house.provider.faults.add("rewrite", route="list", every_row=True, drop=["status"])
    house.provider.faults.add("status", route="retrieve", status=500, times=9)
    await house.sweep()
    assert (await batch_of(house, id)).look_error is not None
    pages.clear()
    await house.sweep()
    assert id in [batch.id for batch in pages[0].batches]
    assert (await batch_of(house, id)).look_error is None


async def test_a_batch_that_is_read_by_its_id_has_its_row_read_too(
    house: House, pages: list[Page]
) -> None:
    """Every tenth sweep holds the list against one batch: an old list is still found out."""
    ids = await known(house)
    house.provider.calls.clear()
    pages.clear()
    for _ in range(10):
        await house.sweep()
    assert house.provider.calls == {"list": 10, "retrieve": 1}
    assert sum(len(page.batches) for page in pages) == 1
    assert {(await batch_of(house, id)).status for id in ids} == {Status.IN_PROGRESS}


async def test_rows_are_remembered_of_open_batches_alone(house: House) -> None:
    ids = await known(house)
    assert len(house.watcher._memory.rows) == 3
    for id in ids:
        house.provider.finish(id, "completed")
    await house.register(*house.provider.add_batches(4))
    for _ in range(3):
        await house.sweep()
    assert len(house.watcher._memory.rows) == 4


@pytest.mark.databases("sqlite")
async def test_a_list_of_known_rows_is_walked_to_its_end(house: House, pages: list[Page]) -> None:
    ids = await known(house, 250)
    pages.clear()
    await house.sweep()
    assert [len(page.unchanged) for page in pages] == [100, 100, 50]
    house.provider.finish(ids[0], "completed")
    await house.sweep()
    assert (await batch_of(house, ids[0])).status is Status.COMPLETED
