"""What is missing: who should have heard of an event, by the rules that events are told by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from batchbell.core.model import DEFAULT_EVENTS, DEFAULT_PROJECT, EventType
from batchbell.core.notices import Notice
from batchbell.core.replay import ReplayFilter, ReplayStatus
from batchbell.storage import endpoints, outbox, replay_walk
from batchbell.storage.replays import Counted
from tests.conftest import SECRET
from tests.storage.scene import OK, URL, Scene
from tests.storage.test_replays import MISSING, OTHER, count, replayed, try_all


async def missed_by(scene: Scene, **wishes: Any) -> str:
    """An endpoint of the whole project, of which every delivery is then gone."""
    wanted = endpoints.EndpointFields(url=OTHER, name="all", event_types=DEFAULT_EVENTS)
    made = await scene.store.write(
        endpoints.create,
        DEFAULT_PROJECT,
        replace(wanted, **wishes),
        secret=SECRET,
        mint=scene.mint,
        now=scene.clock(),
    )
    await scene.due("batch_1", "batch_2")
    await try_all(scene, OK)
    gone = text("DELETE FROM deliveries WHERE watch_id IS NULL")
    await scene.store.write(lambda c: c.execute(gone))
    return made.id


async def test_what_an_endpoint_of_the_whole_project_misses_is_made(scene: Scene) -> None:
    id = await missed_by(scene)
    assert await count(scene, MISSING) == Counted(2, 0)
    assert (await replayed(scene, MISSING)).done == 2
    scene.clock.advance(1)
    assert {one.endpoint_id for one in (await scene.claim()).deliveries} == {id}
    assert await count(scene, MISSING) == Counted(0, 0)


@pytest.mark.parametrize(
    "wishes",
    [
        {"accounts": ("mars",)},
        {"metadata": {"when": "night"}},
        {"event_types": (EventType.LOST, EventType.ENDPOINT_FAILING)},
    ],
)
async def test_what_does_not_pass_its_filters_is_not_missing(
    scene: Scene, wishes: dict[str, Any]
) -> None:
    await missed_by(scene, **wishes)
    assert await count(scene, MISSING) == Counted(0, 0)


async def test_what_happened_before_an_endpoint_was_made_is_not_missing(scene: Scene) -> None:
    await scene.due("batch_0")
    await try_all(scene, OK)
    scene.clock.advance(1)
    await missed_by(scene)
    assert await count(scene, MISSING) == Counted(2, 0)


async def test_a_notice_that_was_missed_is_made_but_not_one_of_itself(scene: Scene) -> None:
    id = await missed_by(scene, event_types=(EventType.ENDPOINT_FAILING,))
    await missed_by(scene, url=URL + "/2", event_types=(EventType.ENDPOINT_FAILING,))
    type_ = EventType.ENDPOINT_FAILING
    for about in ("whe_other", id):
        notice = Notice(type=type_, project_id=DEFAULT_PROJECT, at=1.0, data={"id": about})
        told = {"mint": scene.mint, "now": scene.clock()}
        await scene.store.write(outbox.announce, [notice], **told)
    await scene.store.write(lambda c: c.execute(text("DELETE FROM deliveries")))
    only = ReplayFilter(status=ReplayStatus.MISSING, endpoint_id=id)
    assert await count(scene, only) == Counted(1, 0)
    assert (await replayed(scene, only)).done == 1


async def test_windows_of_missing_ones_are_walked_to_the_end(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_walk, "WINDOW", 3)
    await scene.due(*(f"batch_{n}" for n in range(8)))
    await scene.store.write(lambda c: c.execute(text("DELETE FROM deliveries")))
    done = await replayed(scene, MISSING)
    assert (done.total, done.done) == (8, 8)
