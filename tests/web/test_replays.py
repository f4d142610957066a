"""`/v1/replays`: counted first, begun, followed and cancelled."""

from __future__ import annotations

from typing import Any

import pytest

from batchbell.core.model import DEFAULT_PROJECT, Outcome
from batchbell.core.replay import ReplayFilter
from batchbell.storage import projects, replays
from batchbell.workers.replayer import Replayer

from ..conftest import Clock
from .making import Served, a_snapshot

BROKEN = Outcome(status=500, duration_ms=1.0)
FINE = Outcome(status=204, duration_ms=1.0)


async def failing(served: Served, count: int = 3) -> list[str]:
    """Deliveries that have failed once, each of an event of its own."""
    for number in range(count):
        await served.watch(f"batch_{number}")
        await served.see(a_snapshot(f"batch_{number}"))
    return list(await served.try_all(BROKEN))


def replayer(served: Served) -> Replayer:
    context = served.context
    return Replayer(context.store, clock=context.clock, mint=context.mint, metrics=context.metrics)


async def post(served: Served, status: int, **body: Any) -> dict[str, Any]:
    answer = await served.http.post("/v1/replays", json=body)
    assert answer.status_code == status, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def test_a_dry_run_only_counts(served: Served) -> None:
    await failing(served)
    counted = await post(served, 200, dry_run=True)
    assert counted == {"object": "replay.dry_run", "total": 3, "skipped": 0}
    assert (await served.http.get("/v1/replays")).json()["data"] == []


async def test_a_replay_is_begun_walked_and_read_back(served: Served) -> None:
    ids = await failing(served)
    made = await post(served, 201, pace=10, types=["batch.completed"])
    assert (made["object"], made["state"], made["status"]) == ("replay", "running", "failed")
    assert (made["total"], made["done"], made["finished_at"]) == (3, 0, None)
    assert await replayer(served).step()
    found = (await served.http.get(f"/v1/replays/{made['id']}")).json()
    assert (found["state"], found["done"]) == ("done", 3)
    assert found["finished_at"] is not None
    assert not await replayer(served).step(), "it rests"
    assert (await served.http.get("/v1/replays")).json()["data"] == [found]
    assert await served.try_all(FINE) == ids[:1], "the others wait for their turn"


async def test_the_clock_paces_a_long_replay(served: Served, clock: Clock) -> None:
    await failing(served, 5)
    await post(served, 201, pace=1)
    worker = replayer(served)
    assert await worker.step()
    assert not await worker.step()
    assert 0 < await worker.idle_seconds() <= 2
    clock.advance(2)
    assert await worker.step()


async def test_a_replay_is_cancelled(served: Served, clock: Clock) -> None:
    await failing(served, 5)
    made = await post(served, 201, pace=1)
    await replayer(served).step()
    ended = (await served.http.post(f"/v1/replays/{made['id']}/cancel")).json()
    assert (ended["state"], ended["done"]) == ("cancelled", 2)
    clock.advance(60)
    assert not await replayer(served).step()


async def test_what_is_sent_as_new_shows_its_id(served: Served) -> None:
    [delivery_id] = await failing(served, 1)
    path = f"/v1/deliveries/{delivery_id}"
    before = (await served.http.get(path)).json()
    assert before["webhook_id"] == before["event_id"]
    await post(served, 201, as_new=True)
    await replayer(served).step()
    after = (await served.http.get(path)).json()
    assert after["webhook_id"] not in (before["event_id"], None)
    assert after["event_id"] == before["event_id"]


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"status": "broken"}, "status"),
        ({"status": 7}, "status"),
        ({"since": "yesterday"}, "since"),
        ({"since": -1}, "since"),
        ({"until": 1e300}, "until"),
        ({"types": []}, "types"),
        ({"types": ["batch.done"]}, "types[0]"),
        ({"types": [[]]}, "types[0]"),
        ({"pace": 0}, "pace"),
        ({"pace": 1001}, "pace"),
        ({"as_new": 1}, "as_new"),
        ({"dry_run": "yes"}, "dry_run"),
        ({"endpoint_id": ""}, "endpoint_id"),
        ([], None),
    ],
)
async def test_what_cannot_be_taken_is_named(served: Served, body: Any, param: str | None) -> None:
    answer = await served.http.post("/v1/replays", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_another_projects_things_are_not_there(served: Served, clock: Clock) -> None:
    store, mint = served.context.store, served.context.mint
    await store.write(projects.ensure_project, id="other", secret="whsec_x", now=clock())
    theirs = await store.write(
        replays.create, "other", ReplayFilter(), replays.Counted(0, 0), mint=mint, now=clock()
    )
    for answer in (
        await served.http.get(f"/v1/replays/{theirs.id}"),
        await served.http.post(f"/v1/replays/{theirs.id}/cancel"),
        await served.http.get("/v1/replays", params={"after": theirs.id}),
        await served.http.post("/v1/replays", json={"endpoint_id": "whe_of_theirs"}),
        await served.http.post("/v1/replays", json={"event_id": "evt_of_theirs"}),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert (await served.http.get("/v1/replays")).json()["data"] == []
    assert (await store.read(replays.get_replay, "other", theirs.id)).project_id != DEFAULT_PROJECT
