"""What sweeps see, write and cost."""

from __future__ import annotations

import json

import pytest
from tests.workers.conftest import House

from batchbell.core.model import DEFAULT_PROJECT, Account, AccountState, EventType, Status
from batchbell.core.polling import Pace
from batchbell.storage import accounts, batches, deliveries, events, sweeps


async def batch_of(house: House, id: str):
    return await house.read(batches.get_batch, DEFAULT_PROJECT, id)


async def event_types(house: House) -> list[str]:
    page = await house.read(events.list_events, DEFAULT_PROJECT, limit=100)
    return [event.type.value for event in page.items]


async def test_a_completed_batch_becomes_one_event_and_one_delivery(house: House) -> None:
    """Pitfall 9: counts, outcome and file ids travel with the event."""
    id = house.provider.add_batch(total=10)
    await house.register(id)
    await house.sweep()
    assert (await batch_of(house, id)).status is Status.IN_PROGRESS
    house.provider.finish(id, "completed", failed=2)
    await house.sweep()
    await house.sweep()
    page = await house.read(events.list_events, DEFAULT_PROJECT, limit=100)
    (event,) = page.items
    data = json.loads(event.body)["data"]
    assert (event.type, data["outcome"]) == (EventType.COMPLETED, "partial")
    assert data["request_counts"] == {"total": 10, "completed": 8, "failed": 2}
    assert data["output_file_id"]
    assert data["error_file_id"]
    assert len((await house.read(deliveries.list_deliveries, DEFAULT_PROJECT, limit=9)).items) == 1


@pytest.mark.parametrize("end", ["completed", "failed", "expired", "cancelled"])
async def test_each_end_has_its_event(house: House, end: str) -> None:
    """Pitfall 13: expired and cancelled batches hand over what they finished."""
    id = house.provider.add_batch(total=4)
    await house.register(id)
    house.provider.finish(id, end)
    await house.sweep()
    assert await event_types(house) == [f"batch.{end}"]


async def test_a_batch_whose_requests_all_failed_is_no_success_and_ends_the_watching(
    house: House,
) -> None:
    """Pitfall 12: `completed` with only an error file."""
    id = house.provider.add_batch(total=3)
    await house.register(id)
    house.provider.finish(id, "completed", failed=3)
    await house.sweep()
    batch = await batch_of(house, id)
    assert (batch.status, batch.outcome) == (Status.COMPLETED, "none")
    before = house.provider.calls.total()
    await house.sweep()
    assert house.provider.calls.total() == before


async def test_an_unknown_id_is_lost_after_two_404s_and_the_default_watch_is_told_of_a_failure(
    house: House,
) -> None:
    """Pitfall 5: an unknown batch is not polled for ever, and somebody is told."""
    await house.register("batch_unknown")
    await house.sweep()
    assert (await batch_of(house, "batch_unknown")).status is Status.VALIDATING
    await house.sweep()
    assert house.provider.calls["retrieve"] == 1, "a lone 404 is not asked again at once"
    house.clock.advance(60)
    await house.sweep()
    assert (await batch_of(house, "batch_unknown")).status is Status.LOST
    page = await house.read(events.list_events, DEFAULT_PROJECT, limit=9)
    (event,) = page.items
    assert event.type is EventType.FAILED
    assert json.loads(event.body)["data"]["error"]["code"] == "batch_not_found"


async def test_an_unknown_status_is_watched_on_and_shown(house: House) -> None:
    """Pitfall 11 and pitfall 17: a new word is neither an end nor an error."""
    id = house.provider.add_batch(total=3)
    await house.register(id)
    house.provider.set_status(id, "thinking")
    await house.sweep()
    batch = await batch_of(house, id)
    assert batch.snapshot is not None
    assert (batch.status, batch.snapshot.provider_status) == (Status.VALIDATING, "thinking")
    await house.sweep()
    assert house.metrics.unknown_statuses.labels(house.account.name)._value.get() == 1
    house.provider.finish(id, "completed")
    await house.sweep()
    assert (await batch_of(house, id)).status is Status.COMPLETED


async def test_a_sweep_of_many_costs_a_call_for_each_hundred_and_writes_nothing(
    house: House,
) -> None:
    """Pitfall 11: not one retrieve for each batch and cycle."""
    ids = house.provider.add_batches(450)
    await house.register(*ids)
    await house.sweep()
    house.provider.calls.clear()
    stamps = {id: (await batch_of(house, id)).updated_at for id in ids[:3]}
    await house.sweep()
    assert house.provider.calls == {"list": 5}
    assert {id: (await batch_of(house, id)).updated_at for id in ids[:3]} == stamps


@pytest.mark.databases("sqlite")
async def test_a_sweep_that_lost_its_lease_writes_nothing_more_and_ends(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = house.provider.add_batches(150)
    await house.register(*ids)
    write = house.store.write

    async def writing(query, *args, **kwargs):
        if query is sweeps.write_found:
            kwargs["token"] = "another"
        return await write(query, *args, **kwargs)

    monkeypatch.setattr(house.store, "write", writing)
    await house.sweep()
    assert {(await batch_of(house, id)).status for id in (ids[0], ids[-1])} == {Status.VALIDATING}


@pytest.mark.databases("sqlite")
async def test_a_batch_that_a_shifting_list_skipped_is_retrieved(house: House) -> None:
    """Pitfall 17: cursors shift while paging; a missing id proves nothing."""
    ids = house.provider.add_batches(250)
    await house.register(*ids)
    await house.sweep()
    for id in ids:
        house.provider.finish(id, "completed")
    house.provider.faults.add("shift", rows=5, skip_calls=1)
    await house.sweep()
    ended = [id for id in ids if (await batch_of(house, id)).status is Status.COMPLETED]
    assert len(ended) == 250
    assert house.provider.calls["retrieve"] == 5


async def test_one_old_batch_behind_many_others_is_retrieved_and_not_searched_for(
    house: House,
) -> None:
    (old,) = house.provider.add_batches(1)
    house.provider.add_batches(2_000)
    await house.register(old)
    await house.sweep()
    assert house.provider.calls == {"retrieve": 1}


async def test_too_many_requests_pause_the_account_for_as_long_as_it_asks(house: House) -> None:
    """Pitfall 24: a 429 pauses the account, not the batch; a new watch does not end the pause."""
    ids = house.provider.add_batches(3)
    await house.register(*ids)
    house.provider.faults.add("rate_limited", retry_after_seconds=120)
    await house.sweep()
    (account,) = await house.read(accounts.list_accounts, DEFAULT_PROJECT)
    assert account.state is AccountState.FAILING
    house.clock.advance(60)
    await house.register(*house.provider.add_batches(1))
    assert not await house.watcher.step()
    house.clock.advance(61)
    assert await house.watcher.step()
    (account,) = await house.read(accounts.list_accounts, DEFAULT_PROJECT)
    assert (account.state, account.reason) == (AccountState.ACTIVE, None)


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("kind", "wishes"),
    [
        ("status", {"status": 500}),
        ("status", {"status": 503}),
        ("html", {"status": 200}),
        ("html", {"status": 502}),
        ("truncated", {}),
        ("cut_off", {}),
        ("reset", {}),
        ("unauthorized", {}),
    ],
)
async def test_whatever_the_provider_answers_nothing_is_lost_and_the_account_recovers(
    house: House, kind: str, wishes: dict
) -> None:
    ids = house.provider.add_batches(3)
    await house.register(*ids)
    for id in ids:
        house.provider.finish(id, "completed")
    house.provider.faults.add(kind, times=None, **wishes)
    for _ in range(3):
        await house.sweep()
    (account,) = await house.read(accounts.list_accounts, DEFAULT_PROJECT)
    assert account.state is AccountState.FAILING
    assert account.failures >= 3
    assert account.reason
    assert await event_types(house) == []
    house.provider.faults.clear()
    await house.sweep()
    assert await event_types(house) == ["batch.completed"] * 3
    (account,) = await house.read(accounts.list_accounts, DEFAULT_PROJECT)
    assert account.state is AccountState.ACTIVE


async def test_a_provider_that_is_gone_is_called_ever_more_rarely(house: House) -> None:
    await house.register(*house.provider.add_batches(2))
    await house.sandbox.stop()
    waits = []
    for _ in range(6):
        before = house.clock()
        await house.sweep()
        waits.append(house.clock() - before)
    assert waits[1:] == sorted(waits[1:])
    assert waits[-1] >= 100
    await house.sandbox.start()
    await house.sweep()
    (account,) = await house.read(accounts.list_accounts, DEFAULT_PROJECT)
    assert account.state is AccountState.ACTIVE


async def test_one_row_without_sense_is_pushed_ahead_and_harms_no_other(house: House) -> None:
    good, bad, last = house.provider.add_batches(3)
    await house.register(good, bad, last)
    house.provider.faults.add("rewrite", batch_id=bad, drop=["status"], times=None)
    for id in (good, last):
        house.provider.finish(id, "completed")
    await house.sweep()
    assert (await batch_of(house, good)).status is Status.COMPLETED
    first = await batch_of(house, bad)
    assert (first.look_error, first.check_at) == ("The batch has no status.", 0.0)
    await house.sweep()
    await house.sweep()
    poisoned = await batch_of(house, bad)
    assert poisoned.check_at == house.clock() + 60
    house.provider.faults.clear()
    house.clock.advance(61)
    await house.sweep()
    assert (await batch_of(house, bad)).look_error is None


async def test_a_row_of_the_list_that_makes_no_sense_is_read_by_its_id(house: House) -> None:
    ids = house.provider.add_batches(3)
    await house.register(*ids)
    house.provider.faults.add("rewrite", route="list", batch_id=ids[1], drop=["status"], times=None)
    house.provider.finish(ids[1], "completed")
    await house.sweep()
    assert (await batch_of(house, ids[1])).status is Status.COMPLETED
    assert house.provider.calls == {"list": 1, "retrieve": 1}


async def account_of(house: House) -> Account:
    (account,) = await house.read(accounts.list_accounts, DEFAULT_PROJECT)
    return account


@pytest.mark.parametrize(("kind", "status"), [("status", 501), ("status", 403), ("html", 200)])
async def test_where_the_list_fails_batches_are_read_one_by_one(
    house: House, kind: str, status: int
) -> None:
    ids = house.provider.add_batches(20)
    await house.register(*ids)
    house.provider.faults.add(kind, status=status, route="list", times=None)
    await house.sweep()
    assert house.provider.calls == {"list": 1, "retrieve": 20}
    account = await account_of(house)
    assert (account.state, account.verbs.retrieve_error) == (AccountState.ACTIVE, None)
    assert account.verbs.list_error
    for id in ids:
        house.provider.finish(id, "completed")
    for _ in range(3):
        await house.sweep()
    assert await event_types(house) == ["batch.completed"] * 20
    house.provider.faults.clear()
    house.clock.advance(600)
    await house.sweep()
    assert (await account_of(house)).verbs.list_error is None, "it is tried again, ever more rarely"


@pytest.mark.parametrize("number", [1, 3])
async def test_where_retrieves_fail_the_list_is_read(house: House, number: int) -> None:
    ids = house.provider.add_batches(number)
    house.provider.add_batches(150)
    await house.register(*ids)
    house.provider.faults.add("status", status=500, route="retrieve", times=None)
    for id in ids:
        house.provider.finish(id, "completed")
    for _ in range(2):
        await house.sweep()
    found = len(await event_types(house))
    assert found in ((0,) if number == 1 else (3,)), "one page costs no more than they would"
    assert (await account_of(house)).state is AccountState.ACTIVE
    assert bool((await account_of(house)).verbs.retrieve_error) is (number == 1)


async def test_one_batch_that_cannot_be_read_harms_no_other_and_shows_why(house: House) -> None:
    good, bad = house.provider.add_batches(2, created_at=1.0)
    house.provider.add_batches(1000)
    await house.register(good, bad)
    house.provider.faults.add("status", status=500, route="retrieve", batch_id=bad, times=None)
    house.provider.finish(good, "completed")
    await house.sweep()
    assert (await batch_of(house, good)).status is Status.COMPLETED
    assert "error while processing" in ((await batch_of(house, bad)).reason or "")
    account = await account_of(house)
    assert (account.state, account.reason) == (AccountState.ACTIVE, None)
    assert account.verbs.retrieve_error


async def test_a_batch_that_was_alive_survives_a_404_of_its_own_for_a_long_time(
    house: House,
) -> None:
    ids = house.provider.add_batches(3)
    await house.register(*ids)
    await house.sweep()
    house.provider.faults.add("missing", batch_id=ids[0], times=None)
    for _ in range(12):
        house.clock.advance(300)
        await house.sweep()
    hidden = await batch_of(house, ids[0])
    assert hidden.status is Status.IN_PROGRESS
    assert "No batch found" in (hidden.reason or "")
    house.provider.faults.clear()
    house.provider.finish(ids[0], "completed")
    house.clock.advance(3600)
    await house.sweep()
    assert await event_types(house) == ["batch.completed"]


@pytest.mark.databases("sqlite")
async def test_batches_that_are_all_missing_at_once_are_the_accounts_problem(house: House) -> None:
    ids = house.provider.add_batches(3)
    await house.register(*ids)
    await house.sweep()
    for id in ids:
        house.provider.faults.add("missing", batch_id=id, times=None)
    for _ in range(40):
        house.clock.advance(1200)
        await house.sweep()
    account = await account_of(house)
    assert account.state is AccountState.FAILING
    assert "none of the 3 batches" in (account.reason or "")
    assert {(await batch_of(house, id)).status for id in ids} == {Status.IN_PROGRESS}
    house.provider.faults.clear()
    house.provider.finish(ids[0], "completed")
    await house.sweep()
    assert await event_types(house) == ["batch.completed"]
    assert (await account_of(house)).state is AccountState.ACTIVE


async def test_a_wrong_key_shows_on_the_batch_at_the_first_look(house: House) -> None:
    (id,) = house.provider.add_batches(1)
    await house.register(id, "batch_unknown")
    house.provider.faults.add("unauthorized", times=None)
    await house.sweep()
    assert "Incorrect API key" in ((await batch_of(house, id)).reason or "")
    assert house.provider.calls == {"list": 1, "retrieve": 1}, "nothing else is asked"
    house.provider.faults.clear()
    await house.sweep()
    assert (await batch_of(house, id)).reason is None
    assert "No batch found" in ((await batch_of(house, "batch_unknown")).reason or "")


async def test_a_lost_batch_comes_back_by_the_list_or_by_a_look_at_it(house: House) -> None:
    other, *ids = house.provider.add_batches(3)
    await house.register(other, *ids)
    for id in ids:
        house.provider.faults.add("missing", batch_id=id, times=None)
    await house.sweep()
    house.clock.advance(60)
    await house.sweep()
    assert [(await batch_of(house, id)).status for id in ids] == [Status.LOST] * 2
    house.provider.faults.clear()
    house.provider.finish(other, "completed")
    await house.sweep()
    for id in ids:
        house.provider.finish(id, "completed")
    house.clock.advance(3600)
    await house.sweep()
    types = await event_types(house)
    assert types.count("batch.failed") == 2, "they were told to be lost"
    assert types.count("batch.completed") == 3, "and then of their true end"


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("number", [1, 2, 40])
async def test_a_list_that_never_changes_hides_no_end(house: House, number: int) -> None:
    """LiteLLM's managed batches, and aimock: a batch advances only when it is read by its id."""
    ids = house.provider.add_batches(number)
    await house.register(*ids)
    await house.sweep()
    house.provider.faults.add("stale", times=None)
    for id in ids:
        house.provider.finish(id, "completed")
    for _ in range(10):
        await house.sweep()
    assert await event_types(house) == ["batch.completed"] * number
    assert (await account_of(house)).verbs.list_stale is (number > 1)
    if number == 1:
        return
    house.provider.faults.clear()
    (fresh, other) = house.provider.add_batches(2)
    await house.register(fresh, other)
    await house.sweep()
    house.provider.finish(fresh, "completed")
    await house.sweep()
    assert not (await account_of(house)).verbs.list_stale, "the list agrees again"
    house.provider.calls.clear()
    await house.register(*house.provider.add_batches(50))
    await house.sweep()
    assert house.provider.calls["retrieve"] <= 1


async def test_a_sound_list_is_checked_by_one_call_in_ten_sweeps(house: House) -> None:
    ids = house.provider.add_batches(20)
    await house.register(*ids)
    for _ in range(20):
        await house.sweep()
    assert house.provider.calls == {"list": 20, "retrieve": 2}
    assert not (await account_of(house)).verbs.list_stale


@pytest.mark.parametrize("jump", [-3600.0, -86_400.0, 3600.0])
async def test_a_clock_that_is_set_back_stops_no_sweep(house: House, jump: float) -> None:
    (id,) = house.provider.add_batches(1)
    await house.register(id)
    await house.sweep()
    house.provider.finish(id, "completed")
    house.clock.advance(jump)
    assert await house.watcher.step()
    assert await event_types(house) == ["batch.completed"]
    assert not await house.watcher.step(), "and then the pace is as before"


IDS = ("output_file_id", "error_file_id")


async def files_told(house: House) -> list[bool]:
    page = await house.read(events.list_events, DEFAULT_PROJECT, limit=100)
    told = [json.loads(event.body)["data"] for event in page.items]
    return [bool(data["output_file_id"] or data["error_file_id"]) for data in told]


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("end", "failed", "drop", "reads"),
    [
        ("completed", 0, IDS, 1),
        ("completed", 2, ("output_file_id",), 1),
        ("completed", 10, IDS, 1),
        ("completed", 0, (*IDS, "request_counts"), 1),
        ("expired", 2, (*IDS, "request_counts"), 1),
        ("cancelled", 2, IDS, 1),
        ("completed", 2, (), 0),
        ("completed", 2, ("error_file_id",), 0),
        ("completed", 2, ("request_counts",), 0),
        ("failed", 0, (), 0),
    ],
)
async def test_an_end_that_names_no_files_is_read_by_its_id(
    house: House, end: str, failed: int, drop: tuple[str, ...], reads: int
) -> None:
    """Gateways trim the rows of their lists."""
    ids = house.provider.add_batches(3, total=10)
    await house.register(*ids)
    await house.sweep()
    house.provider.calls.clear()
    for id in ids:
        house.provider.finish(id, end, failed=failed)
        house.provider.faults.add("rewrite", route="list", batch_id=id, drop=drop, times=None)
    await house.sweep()
    assert await event_types(house) == [f"batch.{end}"] * 3
    assert all(await files_told(house)) is (end != "failed")
    assert house.provider.calls["retrieve"] == 3 * reads
    assert not (await account_of(house)).verbs.list_stale


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("kind", "details", "times", "sweeps", "named"),
    [
        ("status", {"status": 500}, 2, 2, True),
        ("status", {"status": 500}, None, 2, False),
        ("status", {"status": 400}, None, 1, False),
        ("late_file", {}, None, 1, False),
        ("rewrite", {"fields": {"status": "in_progress"}}, None, 1, False),
        ("rewrite", {"drop": ["status"]}, None, 1, False),
    ],
)
async def test_an_end_without_files_is_believed_where_its_id_shows_no_more(
    house: House, kind: str, details: dict[str, object], times: int | None, sweeps: int, named: bool
) -> None:
    faults = house.provider.faults
    ids = house.provider.add_batches(2)
    await house.register(*ids)
    await house.sweep()
    for id in ids:
        house.provider.finish(id)
        faults.add("late_file", route="list", batch_id=id, times=None)
        faults.add(
            kind,
            route="retrieve",
            times=times and times // 2,
            batch_id=id if kind != "status" else None,
            **details,
        )
    for number in range(sweeps):
        assert await event_types(house) == [], f"before sweep {number + 1}"
        await house.sweep()
    assert await event_types(house) == ["batch.completed"] * 2
    assert await files_told(house) == [named] * 2


async def test_ends_without_files_are_read_within_the_call_budget(house: House) -> None:
    house.watcher.pace = Pace(poll_interval_seconds=15, calls_per_minute=80)
    ids = house.provider.add_batches(40)
    await house.register(*ids)
    await house.sweep()
    for id in ids:
        house.provider.finish(id)
        house.provider.faults.add("late_file", route="list", batch_id=id, times=None)
    told = []
    for _ in range(3):
        await house.sweep()
        told.append(len(await event_types(house)))
    assert told == [20, 40, 40]
    assert all(await files_told(house))


async def test_an_empty_error_file_id_is_none(house: House) -> None:
    """Pitfall 16: `error_file_id` may be an empty string."""
    id = house.provider.add_batch(total=2)
    await house.register(id)
    house.provider.finish(id, "completed")
    house.provider.faults.add("rewrite", batch_id=id, fields={"error_file_id": ""}, times=None)
    await house.sweep()
    batch = await batch_of(house, id)
    assert batch.snapshot is not None
    assert batch.snapshot.error_file_id is None


async def test_a_late_answer_of_an_ended_batch_changes_nothing(house: House) -> None:
    """Pitfall 2: a late status reply must not write a delivered batch back."""
    id = house.provider.add_batch(total=2)
    await house.register(id)
    house.provider.finish(id, "completed")
    await house.sweep()
    house.provider.set_status(id, "in_progress")
    await house.register(id, path="/second")
    await house.sweep()
    assert (await batch_of(house, id)).status is Status.COMPLETED
    assert await event_types(house) == ["batch.completed"]


async def test_a_batch_long_past_its_window_is_not_taken_for_expired(house: House) -> None:
    """Pitfall 18: never infer expiry from the clock."""
    id = house.provider.add_batch(total=2)
    await house.register(id)
    house.clock.advance(40 * 86400)
    await house.sweep()
    assert (await batch_of(house, id)).status is Status.IN_PROGRESS


async def test_a_watch_made_while_a_sweep_runs_is_swept_right_after_it(house: House) -> None:
    await house.register(*house.provider.add_batches(1))
    now = house.clock()
    claimed = await house.store.write(
        accounts.claim_due, ids=[house.account.id], now=now, lease_seconds=60, token="mine"
    )
    assert claimed
    await house.register(*house.provider.add_batches(1))
    await house.store.write(
        accounts.finish, account_id=house.account.id, token="mine", next_at=now + 15, now=now
    )
    assert await house.watcher.step()


async def test_a_sweep_that_trouble_ended_goes_on_where_it_was(house: House) -> None:
    """Pitfall 24: else the tail of a long list would never be seen under a low rate limit."""
    ids = house.provider.add_batches(450)
    await house.register(*ids)
    house.provider.faults.add("rate_limited", route="list", skip_calls=2, retry_after_seconds=20)
    await house.sweep()
    assert house.provider.calls["list"] == 3
    await house.sweep()
    assert house.provider.calls == {"list": 6}
    seen = [id for id in ids if (await batch_of(house, id)).status is Status.IN_PROGRESS]
    assert len(seen) == 450


async def test_new_watches_never_drive_sweeps_above_the_call_budget(house: House) -> None:
    """Pitfall 24: polling must not burn the rate limit, however often somebody registers."""
    await house.register(*house.provider.add_batches(450))
    await house.sweep()
    await house.register(*house.provider.add_batches(1))
    assert not await house.watcher.step(), "five calls are a quarter of a second of the budget"
    house.clock.advance(0.3)
    assert await house.watcher.step()


@pytest.mark.databases("sqlite")
async def test_a_sweep_of_very_many_is_spread_over_its_budget(house: House) -> None:
    ids = house.provider.add_batches(2_000)
    await house.register(*ids)
    house.watcher.pace = Pace(calls_per_minute=60)
    before = house.clock()
    await house.sweep()
    assert house.provider.calls["list"] == 20
    assert house.clock() - before >= 20 - Pace().poll_interval_seconds


@pytest.mark.parametrize("fails", [False, True])
async def test_nobody_looks_sooner_than_the_provider_asks_for(house: House, fails: bool) -> None:
    """A batch that is registered in between waits, too, and so does one after a failure."""
    house.watcher.pace = Pace(poll_interval_seconds=5.0, look_seconds=60.0)
    await house.register(house.provider.add_batch())
    if fails:
        house.provider.faults.add("status", status=503, times=None)
    await house.sweep()
    house.provider.faults.clear()
    looked_at = house.clock.now
    await house.register(house.provider.add_batch())
    house.clock.advance(59)
    assert not await house.watcher.step()
    await house.sweep()
    assert 60.0 <= house.clock.now - looked_at <= 90.0
    due = await house.read(accounts.next_due, [house.account.id])
    assert due == house.clock.now + 60
