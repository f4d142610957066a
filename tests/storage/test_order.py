"""What an ordered endpoint hears comes in the order in which it happened, by the real mint."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from batchbell.core.ids import Minter
from batchbell.core.model import DEFAULT_PROJECT, EventType, Status
from batchbell.parts import mint as real_mint
from batchbell.storage import endpoints
from tests.storage.scene import Scene, snapshot

HOUR = 3600.0


def by(clock: Callable[[], float]) -> Minter:
    """The mint of another process, by its clock."""
    return Minter(clock=clock, randomness=os.urandom)


@pytest.fixture
async def ordered(scene: Scene) -> str:
    wishes = endpoints.EndpointFields(
        url="https://receiver.example/ordered",
        name="ordered",
        event_types=(EventType.COMPLETED, EventType.IN_PROGRESS),
        ordered=True,
    )
    how = {"secret": "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX", "mint": scene.mint}
    made = await scene.store.write(
        endpoints.create, DEFAULT_PROJECT, wishes, now=scene.clock(), **how
    )
    return made.id


async def heard(scene: Scene) -> list[tuple[str, str]]:
    """Send one after the other, as a dispatcher does; what came, in order."""
    rows = {row.id: row for row in await scene.deliveries()}
    told = []
    while claimed := (await scene.claim()).deliveries:
        assert len(claimed) == 1
        await scene.settle(claimed)
        row = rows[claimed[0].id]
        told.append((str(row.batch_id), str(row.event_type)))
    return told


async def test_within_a_sweep_by_the_time_of_the_event(scene: Scene, ordered: str) -> None:
    """Sixty batches that ended before the sweep, in a list that is in another order."""
    now = replace(scene, mint=real_mint)
    ids = [f"batch_{n:02}" for n in range(60)]
    await now.register(*ids, endpoint_id=ordered)
    seen = [
        snapshot(id, timestamps={"created_at": 1, "completed_at": scene.clock() - 600 + n})
        for n, id in enumerate(ids)
    ]
    random.Random(7).shuffle(seen)
    await now.see(*seen)
    assert [id for id, _ in await heard(now)] == ids


@pytest.mark.parametrize("ahead", [HOUR, 0.0, -HOUR], ids=["ahead", "equal", "behind"])
async def test_events_of_one_batch_that_two_processes_record(
    scene: Scene, ordered: str, ahead: float
) -> None:
    """The first by one whose clock goes wrong: ids alone would have the second come first."""
    first = replace(scene, mint=by(lambda: time.time() + ahead))
    second = replace(scene, mint=by(time.time))
    ids = [f"batch_{n}" for n in range(5)]
    wanted = (EventType.IN_PROGRESS, EventType.COMPLETED)
    await scene.register(*ids, endpoint_id=ordered, events=wanted)
    for id in ids:
        await first.see(snapshot(id, Status.IN_PROGRESS))
        await second.see(snapshot(id))
    started, ended = EventType.IN_PROGRESS.value, EventType.COMPLETED.value
    assert await heard(scene) == [(id, type_) for id in ids for type_ in (started, ended)]
