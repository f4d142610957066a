"""A call that makes a batch is made once, whatever became of its answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.workers.conftest import House
from tests.workers.submitting import Counter, counting, states

from batchbell.core import refusals, twins
from batchbell.core.model import DEFAULT_PROJECT, Status
from batchbell.core.submission import TAG, Expiry
from batchbell.sandbox import problem
from batchbell.storage import submissions

NO_ROOM = problem("token_limit_exceeded", "Enqueued token limit reached.")
LOST: dict[str, dict[str, Any]] = {
    "reset": {"kind": "reset"},
    "a proxy gave up": {"kind": "html", "status": 504},
    "failed after all": {"kind": "status", "status": 500},
    "unreadable": {"kind": "html", "status": 200},
}


@pytest.fixture
async def counter(house: House, tmp_path: Path) -> AsyncIterator[Counter]:
    async with counting(house, tmp_path, expiry=Expiry(input_seconds=7200)) as counter:
        yield counter


async def until(counter: Counter, id: str, state: str, *, waits: int = 40) -> int:
    """Let time pass until the only part is in this state; returns after how many waits."""
    for n in range(waits):
        if states((await counter.of(id)).parts) == [state]:
            return n
        await counter.wait()
    raise AssertionError((await counter.of(id)).parts)


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("keeps_metadata", [True, False])
async def test_what_was_made_is_found_and_not_made_again(
    counter: Counter, lost: str, keeps_metadata: bool
) -> None:
    faults = counter.house.provider.faults
    id = await counter.submit(4)
    faults.add(route="create", carried_out=True, **LOST[lost])
    if not keeps_metadata:
        faults.add("rewrite", route="list", drop=["metadata"], times=None)
    await counter.step()
    assert states((await counter.of(id)).parts) == ["submitting"]
    await until(counter, id, "running")
    assert len(counter.created()) == 1
    assert counter.house.provider.calls["create"] == 1


@pytest.mark.parametrize(
    ("lost", "seconds"),
    [
        ("reset", twins.LOST_LOOK_FOR_SECONDS),
        ("failed after all", twins.FAILED_LOOK_FOR_SECONDS),
    ],
)
async def test_what_was_not_made_is_looked_for_several_times_before_it_is_made(
    counter: Counter, lost: str, seconds: float
) -> None:
    provider, clock = counter.house.provider, counter.house.clock
    id = await counter.submit(4)
    provider.faults.add(route="create", **LOST[lost])
    begun, listed = clock(), provider.calls["list"]
    await counter.step()
    await until(counter, id, "running")
    assert clock() - begun >= seconds
    assert provider.calls["list"] - listed >= twins.LOOKS_LEAST
    assert provider.calls["create"] == 2
    assert len(counter.created()) == 1
    assert (await counter.of(id)).parts[0].reason is None


async def test_a_batch_that_comes_into_the_list_late_is_found(counter: Counter) -> None:
    provider = counter.house.provider
    id = await counter.submit(4)
    provider.faults.add("reset", route="create", carried_out=True)
    await counter.step()
    [made] = counter.created()
    provider.faults.add("missing", route="list", batch_id=made["id"], times=3)
    await until(counter, id, "running")
    assert await counter.running(id) == [made["id"]]


@pytest.mark.parametrize(("lost", "end"), [("reset", "ended"), ("failed after all", "running")])
async def test_a_host_without_a_list_makes_no_twin(counter: Counter, lost: str, end: str) -> None:
    """Where nothing can be seen, a part in grave doubt is given up, and says so."""
    provider = counter.house.provider
    id = await counter.submit(4)
    provider.faults.add(route="create", **LOST[lost])
    provider.faults.add("status", status=501, route="list", times=None, message="No list here.")
    await counter.step()
    await until(counter, id, end)
    part = (await counter.of(id)).parts[0]
    assert provider.calls["create"] == (1 if end == "ended" else 2)
    assert ("may have been made" in (part.reason or "")) is (end == "ended")


async def test_a_part_that_may_be_at_the_provider_is_found_before_it_is_cancelled(
    counter: Counter,
) -> None:
    provider = counter.house.provider
    id = await counter.submit(4)
    provider.faults.add("reset", route="create", carried_out=True)
    await counter.step()
    store, now = counter.house.store, counter.house.clock()
    await store.write(submissions.cancel, DEFAULT_PROJECT, id, now=now)
    await counter.wait()
    [made] = counter.created()
    assert made["status"] == "cancelling"
    await counter.end([made["id"]], "cancelled", completed=1)
    found = await counter.of(id)
    assert (found.batch.status, states(found.parts)) == (Status.CANCELLED, ["ended"])


@pytest.mark.parametrize(
    "message", ["Invalid file id", "The input file is not in the processed state."]
)
async def test_a_file_that_is_not_ready_yet_is_waited_for(counter: Counter, message: str) -> None:
    provider = counter.house.provider
    id = await counter.submit(4)
    provider.faults.add("status", status=400, route="create", message=message, times=3)
    await counter.step()
    assert message in ((await counter.of(id)).parts[0].reason or "")
    await until(counter, id, "running")
    assert (provider.calls["upload"], len(counter.created())) == (1, 1)


async def test_a_file_that_stays_away_is_uploaded_again_and_given_up_in_the_end(
    counter: Counter,
) -> None:
    provider, clock = counter.house.provider, counter.house.clock
    id = await counter.submit(4)
    how = {"status": 404, "route": "create", "message": "No such File object: x", "times": None}
    provider.faults.add("status", **how)
    begun = clock()
    await counter.step()
    await until(counter, id, "ended")
    assert provider.calls["upload"] >= 2
    assert clock() - begun >= refusals.FILE_WAIT_SECONDS
    found = await counter.of(id)
    assert found.batch.status is Status.FAILED
    assert "No such File object" in (found.parts[0].reason or "")


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("status", [409, 423, 425])
async def test_a_refusal_that_passes_is_tried_again(counter: Counter, status: int) -> None:
    provider = counter.house.provider
    id = await counter.submit(4)
    how = {"status": status, "message": "Not now.", "times": 2}
    provider.faults.add("status", route="create", **how)
    provider.faults.add("status", route="upload", **how)
    await counter.step()
    await until(counter, id, "running")
    assert len(counter.created()) == 1


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        ("expires_after.seconds must be between 259200 and 2592000", 259_200),
        ("expires_after is not supported", 30 * 86_400),
    ],
)
async def test_an_expiry_that_a_host_refuses_costs_no_requests(
    counter: Counter, message: str, asked: int
) -> None:
    provider = counter.house.provider
    id = await counter.submit(8)
    provider.faults.add("status", status=400, route="upload", message=message)
    await counter.step()
    while states((await counter.of(id)).parts) != ["running"] * 2:
        await counter.wait()
    parts = (await counter.of(id)).parts
    assert message in (parts[0].note or "")
    assert provider.calls["upload"] == 3, "the second part knows"
    page = provider.file_page(purpose=None, after=None, limit=100, newest_first=False)
    times = [one["expires_at"] - one["created_at"] for one in page["data"]]
    assert times == [asked, asked]


async def test_a_part_that_was_refused_for_want_of_room_is_no_twin_of_itself(
    counter: Counter,
) -> None:
    """The host drops metadata, and the same file is used again."""
    provider = counter.house.provider
    id = await counter.submit(4)
    provider.faults.add("rewrite", route="list", drop=["metadata"], times=None)
    await counter.step()
    [first] = await counter.running(id)
    provider.finish(first, "failed", problems=[NO_ROOM])
    await counter.house.sweep()
    provider.faults.add("reset", route="create", carried_out=True)
    await counter.step()
    while await counter.running(id) in ([], [first]):
        await counter.wait()
    [second] = await counter.running(id)
    assert second != first
    assert len([row for row in counter.created() if TAG in (row["metadata"] or {})]) == 2
