"""The timeline of a batch holds what is kept of it, of this batch alone, and no more than fits."""

from __future__ import annotations

import pytest

from batchbell.core.errors import NotFound
from batchbell.core.model import DEFAULT_PROJECT, Counts, EventType, Outcome, Status
from batchbell.core.timeline import Kind, Timeline
from batchbell.storage import timeline
from batchbell.storage.projects import ensure_project
from batchbell.storage.timeline import read_timeline

from .scene import Scene, snapshot


async def story(scene: Scene, id: str = "b1", project_id: str = DEFAULT_PROJECT) -> Timeline:
    return await scene.store.read(read_timeline, project_id, id)


async def test_a_batch_has_its_whole_story(scene: Scene) -> None:
    hears = (EventType.IN_PROGRESS, EventType.COMPLETED)
    await scene.register("b1", events=hears)
    await scene.register("b2")
    scene.clock.advance(1)
    await scene.see(snapshot("b1", Status.IN_PROGRESS, provider_status="running\x00"))
    scene.clock.advance(1)
    await scene.end("b1", "b2")
    claim = await scene.claim()
    scene.clock.advance(1)
    answered = Outcome(status=500, started_at=scene.clock(), duration_ms=3.0)
    await scene.settle(claim.deliveries, answered)
    found = await story(scene)
    kinds = [one.kind for one in found.entries() if one.kind is not Kind.AT_PROVIDER]
    told = [Kind.EVENT, Kind.DELIVERY]
    end = [Kind.SEEN, Kind.ENDED, Kind.RESULTS]
    attempts = [Kind.ATTEMPT] * 2
    assert kinds == [Kind.REGISTERED, Kind.WATCHED, Kind.SEEN, *told, *end, *told, *attempts]
    words = [one.provider_status for one in found.entries() if one.kind is Kind.SEEN]
    assert words == ["running\x00", "completed"]
    assert {one.http_status for one in found.entries() if one.kind is Kind.ATTEMPT} == {500}
    assert {one.delivery.batch_id for one in found.sent} == {"b1"}
    assert found.left_out == []


async def test_progress_that_moves_no_status_adds_nothing_to_it(scene: Scene) -> None:
    await scene.register("b1")
    for done in range(3):
        counts = Counts(total=3, completed=done, failed=0)
        await scene.see(snapshot("b1", Status.IN_PROGRESS, counts=counts))
    assert len((await story(scene)).batch.history) == 1


async def test_what_does_not_fit_is_named(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for most in ("WATCHES_MOST", "EVENTS_MOST", "DELIVERIES_MOST"):
        monkeypatch.setattr(timeline, most, 1)
    for n in range(2):
        await scene.register("b1", url=f"https://receiver.example/{n}")
    await scene.end("b1")
    found = await story(scene)
    assert found.left_out == ["watches", "deliveries"]
    assert (len(found.watches), len(found.events), len(found.sent)) == (1, 1, 1)


async def test_another_projects_batch_has_no_timeline(scene: Scene) -> None:
    await scene.register("b1")
    await scene.store.write(ensure_project, id="other", secret="whsec_x", now=1.0)
    with pytest.raises(NotFound):
        await story(scene, project_id="other")
    with pytest.raises(NotFound):
        await story(scene, "b2")
