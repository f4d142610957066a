"""Accounts that discover: what nobody named is found in their lists."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text
from tests.workers.conftest import House

from batchbell.core.model import DEFAULT_PROJECT, Dialect
from batchbell.storage import accounts, batch_lists, batches, deliveries
from batchbell.workers.discovery import OVERLAP_SECONDS


async def switch(house: House, *, on: bool = True) -> None:
    await house.store.write(
        accounts.ensure_account,
        project_id=DEFAULT_PROJECT,
        name="openai",
        provider="openai",
        base_url=house.account.base_url,
        discover=on,
        mint=house.mint,
        now=house.clock(),
    )


@pytest.fixture
async def discovering(house: House) -> House:
    """A house that discovers, on an account with some past."""
    house.provider.add_batches(3)
    house.clock.advance(3600)
    await switch(house)
    return house


async def known(house: House) -> set[str]:
    page = await house.read(batch_lists.list_batches, DEFAULT_PROJECT, limit=1000)
    return {batch.id for batch in page.items}


async def since(house: House) -> float | None:
    [account] = await house.read(accounts.list_accounts, DEFAULT_PROJECT)
    return account.discover_since


async def test_a_batch_that_nobody_named_is_found_and_its_webhook_called(
    discovering: House,
) -> None:
    house = discovering
    id = house.provider.add_batch(metadata={"webhook_url": house.receiver.url("/hook")})
    await house.sweep()
    assert await known(house) == {id}
    house.provider.finish(id, "completed")
    await house.sweep()
    await house.deliver()
    [hook] = house.receiver.received
    told = json.loads(hook.body)
    assert (told["type"], told["data"]["id"]) == ("batch.completed", id)
    await house.sweep()
    await house.deliver()
    assert len(house.receiver.received) == 1


async def test_one_that_has_ended_by_then_is_told_of_as_well(discovering: House) -> None:
    house = discovering
    id = house.provider.add_batch(metadata={"webhook_url": house.receiver.url("/hook")})
    house.provider.finish(id, "failed")
    await house.sweep()
    await house.deliver()
    [hook] = house.receiver.received
    assert json.loads(hook.body)["type"] == "batch.failed"


async def test_what_was_made_before_stays_unknown(discovering: House) -> None:
    for _ in range(3):
        await discovering.sweep()
    assert await known(discovering) == set()


async def test_an_account_that_does_not_discover_asks_for_no_list(house: House) -> None:
    house.provider.add_batches(3)
    await house.sweep()
    assert (await known(house), house.provider.calls.total()) == (set(), 0)


async def test_after_it_was_switched_off_nothing_more_is_found(discovering: House) -> None:
    await switch(discovering, on=False)
    discovering.provider.add_batch()
    await discovering.sweep()
    assert await known(discovering) == set()


async def test_more_than_a_page_is_found_in_one_sweep(discovering: House) -> None:
    ids = discovering.provider.add_batches(250)
    await discovering.sweep()
    assert await known(discovering) == set(ids)


async def test_one_behind_a_page_of_known_ones_is_found_too(discovering: House) -> None:
    """Whoever stopped at the first page without news would never see it."""
    house = discovering
    hidden = house.provider.add_batch()
    named = house.provider.add_batches(150)
    await house.register(*named, dialect=Dialect.WATCH)
    await house.sweep()
    assert hidden in await known(house)


async def test_what_was_made_while_we_were_away_is_found(discovering: House) -> None:
    house = discovering
    await house.sweep()
    house.clock.advance(86_400)
    ids = house.provider.add_batches(120)
    house.clock.advance(86_400)
    await house.sweep()
    assert await known(house) == set(ids)


async def test_a_batch_that_shows_late_in_the_list_is_found(discovering: House) -> None:
    house = discovering
    id = house.provider.add_batch()
    house.provider.faults.add("missing", route="list", batch_id=id)
    await house.sweep()
    assert await known(house) == set()
    await house.sweep()
    assert await known(house) == {id}


async def test_one_that_was_forgotten_after_its_time_is_not_found_again(
    discovering: House,
) -> None:
    house = discovering
    id = house.provider.add_batch()
    house.provider.finish(id, "completed")
    await house.sweep()
    house.clock.advance(2 * OVERLAP_SECONDS)
    await house.sweep()
    await house.store.write(lambda c: c.execute(text("DELETE FROM batches")))
    await house.sweep()
    assert await known(house) == set()


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("url", ["nowhere", "ftp://a.example/", "http://10.0.0.1/hook"])
async def test_a_webhook_that_may_not_be_called_is_shown_and_harms_nothing(
    discovering: House, url: str
) -> None:
    house = discovering
    id = house.provider.add_batch(metadata={"webhook_url": url})
    other = house.provider.add_batch()
    await house.sweep()
    await house.sweep()
    house.provider.finish(id, "completed")
    await house.sweep()
    assert await known(house) == {id, other}
    batch = await house.read(batches.get_batch, DEFAULT_PROJECT, id)
    assert batch.webhook_refused is not None
    assert batch.webhook_refused.startswith("metadata.webhook_url is not called: ")
    assert (await house.read(deliveries.list_deliveries, DEFAULT_PROJECT, limit=9)).items == []


async def test_each_spelling_of_the_webhook_is_called_and_two_at_once_are_not(
    discovering: House,
) -> None:
    house = discovering
    hook = house.receiver.url("/hook")
    named = house.provider.add_batch(metadata={"webhookUrl": hook, "url": "the user's own"})
    twice = house.provider.add_batch(metadata={"webhook_url": hook, "webhookUrl": hook})
    house.provider.finish(named, "completed")
    house.provider.finish(twice, "completed")
    await house.sweep()
    await house.deliver()
    assert [json.loads(one.body)["data"]["id"] for one in house.receiver.received] == [named]
    batch = await house.read(batches.get_batch, DEFAULT_PROJECT, twice)
    assert batch.webhook_refused is not None
    assert "metadata.webhook_url and metadata.webhookUrl mean the same" in batch.webhook_refused


async def test_an_idle_sweep_writes_no_batch(discovering: House) -> None:
    house = discovering
    house.provider.add_batches(5)
    await house.sweep()

    async def rows() -> list[object]:
        query = text("SELECT * FROM batches ORDER BY key")
        return await house.read(lambda c: [tuple(row) for row in c.execute(query)])

    before, calls = await rows(), house.provider.calls.copy()
    await house.sweep()
    assert await rows() == before
    assert (house.provider.calls - calls) == {"list": 1}


async def test_the_mark_moves_with_each_look_and_not_past_trouble(discovering: House) -> None:
    house = discovering
    started = house.clock()
    await house.sweep()
    assert await since(house) == started
    house.clock.advance(3600)
    await house.sweep()
    moved = await since(house)
    assert moved == house.clock() - OVERLAP_SECONDS
    house.provider.faults.add("status", route="list", status=500)
    house.clock.advance(3600)
    await house.sweep()
    assert await since(house) == moved


async def test_a_walk_that_trouble_ended_goes_on_where_it_was(discovering: House) -> None:
    house = discovering
    ids = house.provider.add_batches(250)
    house.provider.faults.add("status", route="list", status=500, skip_calls=1)
    await house.sweep()
    assert len(await known(house)) == 100
    await house.sweep()
    assert await known(house) == set(ids)


async def test_a_list_that_is_refused_moves_no_mark(discovering: House) -> None:
    house = discovering
    started = await since(house)
    id = house.provider.add_batch()
    house.provider.faults.add("status", route="list", status=400)
    house.clock.advance(7200)
    await house.sweep()
    assert await since(house) == started
    await house.sweep()
    assert await known(house) == {id}


async def test_open_batches_are_still_seen_when_the_list_is_long(discovering: House) -> None:
    """The walk for new ones ends early; the open ones behind it are looked for as before."""
    house = discovering
    old = house.provider.add_batch()
    await house.sweep()
    house.clock.advance(7200)
    house.provider.add_batches(120)
    house.provider.finish(old, "completed")
    await house.sweep()
    await house.sweep()
    assert (await house.read(batches.get_batch, DEFAULT_PROJECT, old)).status == "completed"


async def test_an_end_that_is_found_without_its_files_is_read_by_its_id(discovering: House) -> None:
    house = discovering
    ids = house.provider.add_batches(3, metadata={"webhook_url": house.receiver.url("/hook")})
    for id in ids:
        house.provider.finish(id)
        house.provider.faults.add("late_file", route="list", batch_id=id, times=None)
    house.provider.faults.add("status", status=404, route="retrieve", batch_id=ids[0], times=None)
    await house.sweep()
    await house.deliver()
    told = {
        data["id"]: data for data in (json.loads(h.body)["data"] for h in house.receiver.received)
    }
    assert [bool(told[id]["output_file_id"]) for id in ids] == [False, True, True]
    await house.sweep()
    assert house.provider.calls["retrieve"] == 3, "and once only"
