"""What the pages of a sweep bring is written while the next ones are read."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from tests.workers.conftest import House
from tests.workers.test_watcher import batch_of

from batchbell.core.model import Status
from batchbell.storage import sweeps


@pytest.mark.databases("sqlite")
async def test_what_waits_for_a_write_does_not_wait_for_a_slow_page(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third page does not come before the second one is written."""
    ids = house.provider.add_batches(250)
    await house.register(*ids)
    third, second_written = asyncio.Event(), asyncio.Event()
    list_page, write = house.watcher.provider.list_page, house.store.write
    pages, sizes = itertools.count(1), []

    async def listing(*args, **kwargs):
        if next(pages) == 3:
            third.set()
            async with asyncio.timeout(5):
                await second_written.wait()
        return await list_page(*args, **kwargs)

    async def writing(query, *args, **kwargs):
        if query is not sweeps.write_found:
            return await write(query, *args, **kwargs)
        async with asyncio.timeout(5):
            await third.wait()
        changes = await write(query, *args, **kwargs)
        sizes.append(len(changes))
        if len(sizes) == 2:
            second_written.set()
        return changes

    monkeypatch.setattr(house.watcher.provider, "list_page", listing)
    monkeypatch.setattr(house.store, "write", writing)
    await house.sweep()
    assert sizes == [100, 100, 50]


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(("limited", "written"), [(False, [100, 300, 50]), (True, [100, 200])])
async def test_what_comes_while_a_page_is_written_is_written_together(
    house: House, monkeypatch: pytest.MonkeyPatch, limited: bool, written: list[int]
) -> None:
    """The first write takes until the fourth page is there; that call may be refused."""
    ids = house.provider.add_batches(450)
    await house.register(*ids)
    if limited:
        house.provider.faults.add("rate_limited", route="list", skip_calls=3)
    fourth = asyncio.Event()
    list_page, write = house.watcher.provider.list_page, house.store.write
    pages, sizes = itertools.count(1), []

    async def listing(*args, **kwargs):
        number = next(pages)
        try:
            return await list_page(*args, **kwargs)
        finally:
            if number == 4:  # what it brings is added before anybody else has a turn
                fourth.set()

    async def writing(query, *args, **kwargs):
        if query is sweeps.write_found:
            sizes.append(len(kwargs["sightings"]))
            async with asyncio.timeout(5):
                await fourth.wait()
        return await write(query, *args, **kwargs)

    monkeypatch.setattr(house.watcher.provider, "list_page", listing)
    monkeypatch.setattr(house.store, "write", writing)
    await house.sweep()
    assert sizes == written
    seen = [id for id in ids if (await batch_of(house, id)).status is Status.IN_PROGRESS]
    assert len(seen) == sum(written)
