"""What a sweep does about batches that have ended by their provider's own word."""

from __future__ import annotations

import pytest
from tests.workers.conftest import House

from batchbell.core.account import Arrivals
from batchbell.core.model import DEFAULT_PROJECT, Status
from batchbell.core.polling import Pace
from batchbell.storage import accounts, batches, hints
from batchbell.storage.hints import Received, Taken

HOUR_SECONDS = 3_600.0


@pytest.fixture(autouse=True)
def hourly(house: House) -> None:
    house.watcher.pace = Pace(poll_interval_seconds=HOUR_SECONDS)


async def hint(house: House, *ids: str, again: str = "") -> list[Taken]:
    """As if the provider had sent a webhook about each."""
    received = [Received(house.account.id, f"evt_{id}{again}", (id,)) for id in ids]
    return await house.store.write(hints.take, received, now=house.clock())


async def due_in(house: House) -> float:
    due = await house.read(accounts.next_due, [house.account.id])
    assert due is not None
    return due - house.clock()


async def status_of(house: House, id: str) -> Status:
    return (await house.read(batches.get_batch, DEFAULT_PROJECT, id)).status


async def opened(house: House, number: int = 1) -> list[str]:
    """Batches that were seen open; nothing is due for an hour."""
    ids = house.provider.add_batches(number)
    await house.register(*ids)
    await house.sweep()
    house.clock.advance(10)  # the rest that its calls cost is over
    assert not await house.watcher.step()
    house.provider.calls.clear()
    return ids


async def test_the_batch_is_looked_at_at_once_and_no_other(house: House) -> None:
    """Although the next sweep is an hour away; which stays so."""
    first, second = await opened(house, 2)
    before = await due_in(house)
    house.provider.finish(first, "completed")
    house.provider.finish(second, "completed")
    assert await hint(house, first) == [Taken.ACCEPTED]
    assert await house.watcher.step()
    await house.deliver()
    [received] = house.receiver.received
    assert first.encode() in received.body
    assert house.provider.calls == {"retrieve": 1}
    assert await status_of(house, second) is Status.IN_PROGRESS
    assert await due_in(house) == before > HOUR_SECONDS / 2
    assert not await house.watcher.step()


async def test_one_that_has_not_ended_after_all_is_looked_at_again_and_then_left(
    house: House,
) -> None:
    [id] = await opened(house)
    await hint(house, id)
    assert await house.watcher.step()
    waits = []
    while (seconds := await due_in(house)) < 60:
        waits.append(seconds)
        house.clock.advance(seconds)
        assert await house.watcher.step()
    assert waits == [2, 5, 10, 20, 40]
    assert house.provider.calls == {"retrieve": 6}
    assert await due_in(house) > HOUR_SECONDS / 2


async def test_one_that_ends_between_two_looks_is_seen_by_the_second(house: House) -> None:
    [id] = await opened(house)
    await hint(house, id)
    await house.watcher.step()
    house.provider.finish(id, "failed")
    house.clock.advance(2)
    await house.watcher.step()
    assert await status_of(house, id) is Status.FAILED
    assert await due_in(house) > HOUR_SECONDS / 2


async def test_hints_about_very_many_batches_cost_pages_and_no_call_each(house: House) -> None:
    ids = await opened(house, 150)
    for id in ids:
        house.provider.finish(id, "completed")
    await hint(house, *ids)
    while await due_in(house) < 60:
        house.clock.advance(max(0.0, await due_in(house)))
        assert await house.watcher.step()
    assert house.provider.calls["list"] <= 3
    assert house.provider.calls["retrieve"] <= 1
    assert {await status_of(house, id) for id in ids} == {Status.COMPLETED}


async def test_hints_about_very_many_that_have_not_ended_do_not_sweep_for_ever(
    house: House,
) -> None:
    ids = await opened(house, 150)
    await hint(house, *ids)
    steps = 0
    while await due_in(house) < 60:
        house.clock.advance(max(0.0, await due_in(house)))
        steps += await house.watcher.step()
    assert steps == 6


async def test_a_provider_that_fails_is_asked_again_when_the_account_is(house: House) -> None:
    [id] = await opened(house)
    house.provider.finish(id, "completed")
    house.provider.faults.add("status", status=503, times=2)
    await hint(house, id)
    assert await house.watcher.step()
    assert (await house.read(accounts.find, DEFAULT_PROJECT, "openai")).state == "failing"
    assert await due_in(house) < 60, "though sweeps are an hour apart"
    await house.sweep()
    assert await status_of(house, id) is Status.COMPLETED


async def test_a_single_404_is_doubted_while_other_batches_are_open(house: House) -> None:
    first, _ = await opened(house, 2)
    house.provider.forget(first)
    await hint(house, first)
    assert await house.watcher.step()
    assert await status_of(house, first) is Status.IN_PROGRESS
    account = await house.read(accounts.find, DEFAULT_PROJECT, "openai")
    assert account.state == "active"


async def test_whoever_takes_over_from_a_dead_worker_looks_at_everything(house: House) -> None:
    """SIGKILL in the middle: the hint is still there, and the lease runs out."""
    [id] = await opened(house)
    house.provider.finish(id, "completed")
    await hint(house, id)
    claim = {"ids": [house.account.id], "lease_seconds": 60.0}
    dead = await house.store.write(accounts.claim_due, **claim, now=house.clock(), token="dead")
    assert dead is not None
    assert not accounts.is_whole(dead, house.clock())
    assert not await house.watcher.step()
    house.clock.advance(60)
    assert await house.watcher.step()
    assert await status_of(house, id) is Status.COMPLETED


async def test_a_paused_account_looks_when_it_is_resumed(house: House) -> None:
    [id] = await opened(house)
    pause = {"word": "openai", "now": house.clock()}
    await house.store.write(accounts.change, DEFAULT_PROJECT, **pause, paused=True)
    house.provider.finish(id, "completed")
    await hint(house, id)
    assert not await house.watcher.step()
    await house.store.write(accounts.change, DEFAULT_PROJECT, **pause, paused=False)
    assert await house.watcher.step()
    assert await status_of(house, id) is Status.COMPLETED


async def test_what_is_old_is_forgotten(house: House) -> None:
    [id] = await opened(house)
    await hint(house, id)
    old = {"before": house.clock() + 1, "limit": 10}
    assert await house.store.write(hints.forget_old, **old) == 1
    assert await hint(house, id) == [Taken.ACCEPTED]


def relaxing(house: House) -> None:
    house.watcher.pace = Pace(relaxed_seconds=240.0)


async def announced(house: House, number: int = 3) -> None:
    """So many batches end, one after the other, and the provider says so each time."""
    for _ in range(number):
        [id] = house.provider.add_batches(1)
        await house.register(id)
        await house.sweep()
        house.clock.advance(1)
        house.provider.finish(id, "completed")
        await hint(house, id)
        assert await house.watcher.step()
        assert await status_of(house, id) is Status.COMPLETED


async def arrivals(house: House) -> Arrivals:
    return await house.read(accounts.arrivals_of, house.account.id)


async def test_polling_relaxes_where_ends_are_announced_and_tightens_when_one_is_not(
    house: House,
) -> None:
    relaxing(house)
    await announced(house, 2)
    await house.sweep()
    assert await due_in(house) <= 15
    await announced(house, 1)
    await house.sweep()
    assert 200 < await due_in(house) <= 240
    [id] = house.provider.add_batches(1)
    await house.register(id)
    await house.sweep()
    house.clock.advance(1)
    house.provider.finish(id, "completed")
    assert await due_in(house) > 200, "nothing says that it has ended"
    await house.sweep()
    assert await status_of(house, id) is Status.COMPLETED, "a poll is the safety net"
    assert await due_in(house) <= 15
    assert await arrivals(house) == Arrivals(
        last_at=(await arrivals(house)).last_at, in_a_row=0, missed_at=house.clock()
    )


async def test_an_end_that_a_poll_has_seen_first_proves_nothing(house: House) -> None:
    relaxing(house)
    await announced(house, 2)
    [id] = house.provider.add_batches(1)
    await house.register(id)
    await house.sweep()
    house.provider.finish(id, "completed")
    await house.sweep()
    assert (await arrivals(house)).in_a_row == 2
    assert await hint(house, id) == [Taken.LATE]
    assert (await arrivals(house)).in_a_row == 2


async def test_an_end_from_before_the_batch_was_known_is_not_missed(house: House) -> None:
    relaxing(house)
    await announced(house, 3)
    [id] = house.provider.add_batches(1)
    house.provider.finish(id, "completed")
    house.clock.advance(600)
    await house.register(id)
    await house.sweep()
    assert (await arrivals(house)).in_a_row == 3


async def test_where_no_webhook_has_ever_come_none_is_missed(house: House) -> None:
    relaxing(house)
    [id] = await opened(house)
    house.provider.finish(id, "completed")
    house.clock.advance(600)
    await house.sweep()
    assert await arrivals(house) == Arrivals()


async def test_ends_that_the_provider_never_announces_are_not_missed(house: House) -> None:
    """As those of Doubleword, which says nothing of what was cancelled."""
    relaxing(house)
    await announced(house, 3)
    house.watcher._announces = frozenset({Status.COMPLETED, Status.FAILED})
    [id] = house.provider.add_batches(1)
    await house.register(id)
    await house.sweep()
    house.clock.advance(1)
    house.provider.finish(id, "cancelled")
    await house.sweep()
    assert (await arrivals(house)).in_a_row == 3


@pytest.mark.parametrize("rings", [True, False])
async def test_without_a_secret_nothing_is_expected_after_a_restart(
    house: House, rings: bool
) -> None:
    relaxing(house)
    await announced(house, 3)
    account = house.account
    await house.store.write(
        accounts.ensure_account,
        project_id=DEFAULT_PROJECT,
        name=account.name,
        provider=account.provider,
        base_url=account.base_url,
        rings=rings,
        mint=house.mint,
        now=house.clock(),
    )
    assert (await arrivals(house)).in_a_row == (3 if rings else 0)
    await house.sweep()
    assert await due_in(house) > 200 if rings else await due_in(house) <= 15


async def test_a_lost_batch_that_its_provider_speaks_of_is_looked_for(house: House) -> None:
    await house.register("batch_late")
    await house.sweep()
    house.clock.advance(60)
    await house.sweep()
    assert await status_of(house, "batch_late") is Status.LOST
    house.provider.add_batch(id="batch_late")
    house.provider.finish("batch_late", "completed")
    house.clock.advance(10)
    assert await hint(house, "batch_late") == [Taken.ACCEPTED]
    assert await house.watcher.step()
    assert await status_of(house, "batch_late") is Status.COMPLETED
    assert not await house.watcher.step()


async def test_a_few_hints_are_looked_at_by_themselves(house: House) -> None:
    """A list may lag behind what a provider has just announced."""
    ids = await opened(house, 20)
    for id in ids:
        house.provider.finish(id, "completed")
    house.provider.faults.add("stale", times=None)
    await hint(house, *ids[:16])
    assert await house.watcher.step()
    assert {await status_of(house, id) for id in ids[:16]} == {Status.COMPLETED}
    assert house.provider.calls == {"retrieve": 16}
