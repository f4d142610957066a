"""Deleting a provider's files after a verified download, and nothing that is in doubt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from tests.workers.cleaning import Yard
from tests.workers.conftest import House
from tests.workers.submitting import Counter, counting

from batchbell.core.deletion import TRIES_MAX, Deletes, DeletionState
from batchbell.core.errors import LeaseLost
from batchbell.files.results_store import Folder
from batchbell.sandbox import problem
from batchbell.storage import batches, deletions
from batchbell.workers.cleaner import Cleaner
from batchbell.workers.collector import Collector

DAY_SECONDS = 86_400.0


@pytest.fixture
async def yard(house: House, tmp_path: Path) -> AsyncIterator[Yard]:
    results_store = Folder(tmp_path / "results")
    way = house.watcher.provider
    chance: dict[str, Any] = {"clock": house.clock, "mint": house.mint, "rand": lambda: 0.0}
    collectors = {
        deletes: Collector(
            house.store,
            results_store,
            lambda _: way,
            **chance,
            metrics=house.metrics,
            scratch=tmp_path / "scratch",
            inline_max_bytes=10_000,
            retention_days=30.0,
            deletes=deletes,
        )
        for deletes in Deletes
    }
    cleaner = Cleaner(house.store, results_store, lambda _: way, **chance, metrics=house.metrics)
    yield Yard(house, results_store, cleaner, collectors.__getitem__)
    for collector in collectors.values():
        await collector.close()


async def test_nothing_is_deleted_by_default(yard: Yard) -> None:
    input = yard.upload()
    id = await yard.collected(input, Deletes.NONE, failed=2)
    await yard.clean()
    assert yard.there(input, *await yard.answers(id)) == [True] * 3
    assert (await yard.house.read(deletions.shown, await yard.batch(id)))[1] is None


@pytest.mark.parametrize("deletes", [Deletes.OUTPUTS, Deletes.ALL])
async def test_files_go_once_the_results_are_kept(yard: Yard, deletes: Deletes) -> None:
    """Pitfall 21: the provider's storage must not fill."""
    input = yard.upload()
    id = await yard.collected(input, deletes, failed=2)
    assert (await yard.fate(id)).state is DeletionState.DUE
    assert yard.there(input, *await yard.answers(id)) == [True] * 3
    await yard.clean()
    fate = await yard.fate(id)
    assert (fate.state, fate.reason, fate.ended_at) == ("deleted", None, yard.house.clock())
    assert yard.there(*await yard.answers(id)) == [False] * 2
    assert yard.there(input) == [deletes is Deletes.OUTPUTS]
    assert await yard.lines(id) == 10


async def test_what_does_not_add_up_stays_and_says_why(yard: Yard) -> None:
    """Pitfall 21: deletion only after a verified download."""
    input = yard.upload()
    id = await yard.running(input)
    yard.house.provider.finish(id, "completed", failed=2)
    yard.house.provider.set_status(id, "completed", completed=9, failed=1)
    await yard.house.sweep()
    await yard.collect(Deletes.ALL)
    await yard.clean()
    fate = await yard.fate(id)
    assert fate.state is DeletionState.KEPT
    assert "counts 10 requests, 9 completed" in str(fate.reason)
    assert yard.there(input, *await yard.answers(id)) == [True] * 3
    assert yard.house.provider.calls["delete_file"] == 0


async def test_files_that_are_gone_already_are_no_trouble(yard: Yard) -> None:
    id = await yard.collected(yard.upload(), failed=2)
    for file in await yard.answers(id):
        yard.house.provider.delete_file(file)
    await yard.clean()
    assert (await yard.fate(id)).state is DeletionState.DELETED


async def test_nothing_goes_whose_copy_is_not_on_the_shelf_as_it_was_written(yard: Yard) -> None:
    input = yard.upload()
    first = await yard.collected(input, Deletes.OUTPUTS)
    second = await yard.collected(yard.upload(), Deletes.OUTPUTS)
    (yard.results_store.root / (await yard.results(first)).name).unlink()
    (yard.results_store.root / (await yard.results(second)).name).write_bytes(b"{}\n")
    await yard.clean()
    for id in (first, second):
        fate = await yard.fate(id)
        assert fate.state is DeletionState.KEPT
        assert "missing from the results store" in str(fate.reason)
        assert yard.there(*await yard.answers(id)) == [True]


async def test_a_provider_in_trouble_is_asked_again_and_the_account_waits(yard: Yard) -> None:
    """Pitfall 24: a 429 pauses the account, not the one batch."""
    ids = [await yard.collected(yard.upload()) for _ in range(3)]
    yard.house.provider.faults.add("rate_limited", route="delete_file", retry_after_seconds=900)
    begun = yard.house.clock()
    await yard.clean()
    assert yard.house.provider.calls["delete_file"] == 1
    assert (await yard.fate(ids[0])).reason
    assert {(await yard.fate(id)).due_at for id in ids} == {begun + 900}
    await yard.clean_later()
    assert {(await yard.fate(id)).state for id in ids} == {DeletionState.DELETED}
    assert {(await yard.fate(id)).reason for id in ids} == {None}


async def test_an_input_stays_while_a_batch_has_it_beside_others(yard: Yard) -> None:
    """Some providers take several files as the input of one batch."""
    input, own = yard.upload(), yard.upload()
    other = await yard.running(own)
    several = text("UPDATE batches SET input_file_id = :files WHERE id = :id")
    row = {"files": f"{own},{input}", "id": other}
    await yard.house.store.write(lambda connection: connection.execute(several, row) and None)
    first = await yard.collected(input)
    await yard.clean()
    assert (await yard.fate(first)).reason == f"The input file was left: batch {other} needed it."
    assert yard.there(input) == [True]
    account_id = (await yard.batch(other)).account_id
    for files, user in ((f"file-x,{own}", other), (own, other), (f"file-x,{own}-2", None)):
        assert await yard.house.read(deletions.user_of, account_id, files) == user


async def test_what_was_deleted_before_the_trouble_is_not_asked_for_again(yard: Yard) -> None:
    id = await yard.collected(yard.upload(), failed=2)
    yard.house.provider.faults.add("status", status=500, route="delete_file", skip_calls=2)
    await yard.clean()
    assert (await yard.fate(id)).state is DeletionState.DUE
    await yard.clean_later()
    assert (await yard.fate(id)).state is DeletionState.DELETED
    assert yard.house.provider.calls["delete_file"] == 4, "three files, one of them twice"


async def test_tries_have_an_end_that_can_be_seen(yard: Yard) -> None:
    id = await yard.collected(yard.upload(), Deletes.OUTPUTS)
    yard.house.provider.faults.add("status", status=503, route="delete_file", times=None)
    await yard.clean()
    for _ in range(TRIES_MAX - 1):
        await yard.clean_later()
    fate = await yard.fate(id)
    assert (fate.state, fate.due_at) == ("failed", None)
    assert fate.reason
    assert await yard.house.read(deletions.next_due) is None
    assert await yard.lines(id) == 10, "the results are none the worse"


async def test_a_refusal_is_not_tried_again(yard: Yard) -> None:
    id = await yard.collected(yard.upload(), Deletes.OUTPUTS)
    yard.house.provider.faults.add("status", status=400, route="delete_file", times=None)
    await yard.clean()
    assert (await yard.fate(id)).state is DeletionState.FAILED


async def test_an_input_stays_until_its_last_batch_is_collected(yard: Yard) -> None:
    """People use an input file again: who comes last clears it away."""
    input = yard.upload()
    other = await yard.running(input)
    first = await yard.collected(input)
    await yard.clean()
    fate = await yard.fate(first)
    assert (fate.state, fate.reason) == (
        "deleted",
        f"The input file was left: batch {other} needed it.",
    )
    assert yard.there(input, *await yard.answers(first)) == [True, False]
    await yard.end(other)
    await yard.clean()
    assert yard.there(input, *await yard.answers(other)) == [False, False]
    assert (await yard.fate(other)).reason is None


async def test_an_input_stays_with_a_batch_that_is_in_doubt(yard: Yard) -> None:
    input = yard.upload()
    doubtful = await yard.running(input)
    yard.house.provider.finish(doubtful, "completed")
    yard.house.provider.set_status(doubtful, "completed", completed=9, failed=1)
    await yard.house.sweep()
    await yard.collect(Deletes.ALL)
    other = await yard.collected(input)
    await yard.clean()
    assert doubtful in str((await yard.fate(other)).reason)
    assert yard.there(input) == [True]


async def test_an_input_waits_for_batches_that_nobody_has_looked_at_yet(yard: Yard) -> None:
    """They are known, and may use it."""
    input = yard.upload()
    first = await yard.running(input)
    other = await yard.registered(input)
    yard.house.provider.finish(first, "completed")
    await yard.house.store.write(
        batches.observe,
        account_id=yard.house.account.id,
        sightings=[await yard.house.watcher.provider.retrieve(first)],
        mint=yard.house.mint,
        now=yard.house.clock(),
    )
    await yard.collect(Deletes.ALL)
    await yard.clean()
    assert yard.there(input, *await yard.answers(first)) == [True, False]
    assert (await yard.fate(first)).state is DeletionState.DUE
    await yard.house.sweep()
    await yard.clean_later()
    assert other in str((await yard.fate(first)).reason)
    assert yard.there(input) == [True]


async def test_a_deletion_whose_lease_was_lost_is_not_written(yard: Yard) -> None:
    id = await yard.collected(yard.upload())
    store, clock = yard.house.store, yard.house.clock
    claim = {"lease_seconds": 1.0, "token": "first"}
    held = await store.write(deletions.claim_due, now=clock(), **claim)
    assert held is not None
    assert await store.write(deletions.claim_due, now=clock(), **claim) is None
    clock.advance(2.0)
    await yard.clean()
    with pytest.raises(LeaseLost):
        await store.write(deletions.end, held, DeletionState.FAILED, reason="late", now=clock())
    assert (await yard.fate(id)).state is DeletionState.DELETED


async def test_a_wish_goes_with_the_results_that_it_is_about(yard: Yard) -> None:
    """Where our own copy is gone, the provider's is the last."""
    await yard.collected(yard.upload())
    yard.house.clock.advance(31 * DAY_SECONDS)
    await yard.collect(Deletes.ALL)
    assert await yard.house.read(deletions.next_due) is None
    await yard.clean()
    assert yard.house.provider.calls["delete_file"] == 0


async def test_an_account_that_cannot_be_called_is_waited_for(yard: Yard) -> None:
    id = await yard.collected(yard.upload())
    house = yard.house
    chance: dict[str, Any] = {"clock": house.clock, "mint": house.mint, "rand": lambda: 0.0}
    gone = Cleaner(house.store, yard.results_store, lambda _: None, **chance, metrics=house.metrics)
    assert await gone.step()
    assert "cannot be called" in str((await yard.fate(id)).reason)
    await yard.clean_later()
    assert (await yard.fate(id)).state is DeletionState.DELETED


IMPOSSIBLE = [
    "UPDATE deletions SET state = 'gone'",
    "UPDATE deletions SET due_at = NULL",
    "UPDATE deletions SET ended_at = 1",
    "UPDATE deletions SET state = 'failed', due_at = NULL, ended_at = 1",
    "UPDATE deletions SET lease_token = 'l'",
    "UPDATE deletions SET state = 'deleted', due_at = NULL, ended_at = 1, lease_token = 'l',"
    " lease_until = 1",
    "UPDATE deletions SET results_id = 'res_0'",
]


@pytest.mark.parametrize("statement", IMPOSSIBLE)
async def test_impossible_rows_are_refused(yard: Yard, statement: str) -> None:
    await yard.collected(yard.upload())
    with pytest.raises(IntegrityError):
        await yard.house.store.write(lambda c: c.execute(text(statement)))


@pytest.fixture
async def counter(yard: Yard, tmp_path: Path) -> AsyncIterator[Counter]:
    async with counting(yard.house, tmp_path, deletes=Deletes.ALL) as counter:
        yield counter


def purposes(house: House) -> list[str]:
    """Of the files that are left at the provider."""
    page = house.provider.file_page(purpose=None, after=None, limit=1000, newest_first=False)
    return [file["purpose"] for file in page["data"]]


async def test_the_files_of_parts_go_when_the_whole_is_kept(yard: Yard, counter: Counter) -> None:
    id = await counter.submit(8, retry_missing=1)
    await counter.step()
    first, second = await counter.running(id)
    await counter.end([first], "expired", completed=1)
    await yard.clean()
    assert len(purposes(yard.house)) == 5, "two inputs and one to try again, an output, an error"
    [again] = [one for one in await counter.running(id) if one != second]
    await counter.end([again, second])
    assert (await yard.fate(id)).state is DeletionState.DUE
    await yard.clean()
    assert purposes(yard.house) == []
    for batch_id in (id, first, second, again):
        assert (await yard.fate(batch_id)).state is DeletionState.DELETED
    lines = await counter.lines(id)
    assert [line["custom_id"] for line in lines] == [f"r{n}" for n in range(8)]


async def test_the_file_of_a_part_that_failed_goes_with_the_whole(
    yard: Yard, counter: Counter
) -> None:
    id = await counter.submit(8)
    await counter.step()
    first, second = await counter.running(id)
    await counter.end([first], "failed", problems=[problem("invalid_url", "No.", line=1)])
    await counter.end([second])
    await yard.clean()
    assert (await yard.fate(id)).state is DeletionState.DELETED
    assert purposes(yard.house) == []


async def test_a_step_has_an_end_and_the_next_goes_on(yard: Yard, counter: Counter) -> None:
    """What is large must not hold up those behind it, nor a stop."""
    id = await counter.submit(20)
    await counter.step()
    await counter.end(await counter.running(id))
    house = yard.house

    def slow_clock() -> float:
        house.clock.advance(2.0)
        return house.clock()

    chance: dict[str, Any] = {"mint": house.mint, "rand": lambda: 0.0, "metrics": house.metrics}
    way = house.watcher.provider
    cleaner = Cleaner(house.store, yard.results_store, lambda _: way, clock=slow_clock, **chance)
    assert await cleaner.step()
    assert (await yard.fate(id)).state is DeletionState.DUE
    assert len(purposes(house)) == 5, "five of ten files are gone"
    assert await cleaner.step()
    assert (await yard.fate(id)).state is DeletionState.DELETED
    assert house.provider.calls["delete_file"] == 10
