"""SIGKILL while an endpoint is being disabled, or while what waited for it is pulled forward."""

from __future__ import annotations

import time

import pytest
from tests.faults.conftest import Process, Town, told_of

from batchbell import failpoints
from batchbell.core.slots import MOST
from batchbell.sandbox import Hold, Respond
from batchbell.workers.ring import ROOM

STEP = 20
"""In these tests one step takes so few, so that some dozens of deliveries take several."""
FEW = STEP - 5
MANY = ROOM + 2 * STEP
"""More than one step takes, beside what a process has claimed."""
PATH = "/hook/0"
GONE = Respond(status=410)
DOWN = Respond(status=500)

WAITS = "state = 'pending'"


@pytest.fixture
def town(town: Town) -> Town:
    town.first = "from batchbell.storage import endpoints, health, sqlite; "
    town.first += f"endpoints.STEP = health.STEP = {STEP}; "
    # Each step has a commit of its own. The dispatcher's and the janitor's may share one on SQLite,
    # and a kill in the second would undo both.
    town.first += "sqlite.GROUP_MAX = 1"
    return town


async def ended(town: Town, number: int, answer: Respond) -> list[str]:
    """Batches that have ended, all watched by one endpoint; it answers once all of them wait."""
    town.receiver.behave(PATH, Hold(answer))
    ids = town.sandbox.provider.add_batches(number)
    await town.register(ids, paths=1)
    for id in ids:
        town.sandbox.provider.finish(id, "completed")
    await town.until(lambda: town.count(WAITS) == number)
    await town.receiver.wait_for(1)
    town.receiver.behave(PATH, answer)
    town.receiver.release()
    return ids


async def again(town: Town, place: str = "") -> Process:
    """Start anew after a kill."""
    town.let_leases_run_out()
    return await town.start(failpoint=place)


async def all_are_held_and_then_delivered(town: Town, ids: list[str]) -> None:
    """What waited is held, and the owner who enables the endpoint hears of everything."""
    await town.until(lambda: town.count(WAITS) == 0 and town.count("state = 'held'") > 0)
    assert town.count("state IN ('held', 'delivered')") == len(ids), "lost"
    town.receiver.behave(PATH, Respond())
    before = len(town.receiver.received)
    replay = await town.ask("POST", "/v1/replays", status="held", enable=True, pace=1000)
    await town.until(lambda: town.recorded() == len(ids))
    assert replay["total"] == len(town.receiver.received) - before, "each is sent once"
    assert set(town.told()) == set(ids)
    assert town.receiver.bad_signatures == 0


@pytest.mark.parametrize("place", [failpoints.INSIDE_DISABLE, failpoints.INSIDE_HOLD])
async def test_killed_while_it_is_being_disabled(town: Town, place: str) -> None:
    process = await town.start(failpoint=place)
    ids = await ended(town, FEW, GONE)
    await process.killed()
    calls = len(town.receiver.received)
    assert calls <= MOST
    assert town.count(WAITS) == FEW, "nothing was written"
    await again(town)
    await all_are_held_and_then_delivered(town, ids)
    assert len(town.receiver.received) <= calls + MOST + FEW


@pytest.mark.parametrize("place", [f"{failpoints.INSIDE_HOLD}:2"])
async def test_killed_between_two_steps_of_setting_aside(town: Town, place: str) -> None:
    process = await town.start(failpoint=place)
    ids = await ended(town, MANY, GONE)
    await process.killed()
    assert STEP <= town.count("state = 'held'") < MANY, "the first step was kept"
    await again(town)
    await all_are_held_and_then_delivered(town, ids)


async def after_an_outage(town: Town, number: int) -> list[str]:
    """All was tried and failed, for long enough; one is due, the rest in two hours."""
    process = await town.start()
    ids = await ended(town, number, DOWN)
    await town.until(lambda: town.count("last_status = 500") == number)
    await process.kill()
    town.write(
        f"UPDATE deliveries SET lease_token = NULL, due_at = {time.time() + 7200}",
        "UPDATE deliveries SET due_at = 0 WHERE id = (SELECT min(id) FROM deliveries)",
        "UPDATE endpoints SET failing_since = failing_since - 120",
    )
    town.receiver.behave(PATH, Respond())
    return ids


async def all_are_pulled_forward(town: Town, ids: list[str], *, failed: int) -> None:
    """What is left is due in hours, so that nothing but a flush that goes on can deliver it."""
    unrecorded = town.receiver.total - failed - town.recorded()
    await again(town)
    await town.until(lambda: town.recorded() == len(ids))
    assert {told_of(hook) for hook in town.receiver.received[failed:]} == set(ids)
    assert town.receiver.total - failed - len(ids) <= unrecorded
    assert all(len(same) == 1 for same in town.webhook_ids().values())
    assert town.receiver.bad_signatures == 0


@pytest.mark.parametrize("place", [failpoints.INSIDE_FLUSH])
async def test_killed_while_a_backlog_is_pulled_forward(town: Town, place: str) -> None:
    ids = await after_an_outage(town, FEW)
    failed = town.receiver.total
    process = await town.start(failpoint=place)
    await process.killed()
    assert town.count("pulled > 0") == 0, "nothing was written"
    assert town.receiver.total - failed - town.recorded() <= 2 * MOST
    await all_are_pulled_forward(town, ids, failed=failed)


@pytest.mark.parametrize("place", [f"{failpoints.INSIDE_FLUSH}:3"])
async def test_killed_between_two_steps_of_pulling_forward(town: Town, place: str) -> None:
    """The first one is taken with the success that ends the outage, the others by the janitor."""
    steps_before = int(place[-1]) - 1
    ids = await after_an_outage(town, steps_before * STEP + 10)
    failed = town.receiver.total
    process = await town.start(failpoint=place)
    await process.killed()
    # On PostgreSQL the dispatcher and the janitor may both be within a step as the process dies.
    fewest = steps_before if town.on_sqlite else 1
    kept = [steps * STEP for steps in range(fewest, steps_before + 1)]
    assert town.count("pulled > 0") in kept, "whole steps before it were kept"
    await all_are_pulled_forward(town, ids, failed=failed)
    assert town.count("pulled > 0") == len(ids) - 1, "all but the one that was due"
