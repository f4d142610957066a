"""What does not get on says why, wherever it is read."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace
from sqlalchemy import Connection

from batchbell.core.lifecycle import LOST_AFTER_SECONDS
from batchbell.core.model import BatchKind, Counts, Missing, Outcome, Status
from batchbell.storage import schema

from ..conftest import Clock
from .making import HOOK, Served, a_snapshot

pytestmark = pytest.mark.databases("sqlite")


async def shown(served: Served, batch_id: str = "batch_1") -> dict[str, object]:
    """One batch, which the list must show as well."""
    one = (await served.http.get(f"/v1/batches/{batch_id}", params={"fresh": "false"})).json()
    listed = (await served.http.get("/v1/batches")).json()["data"]
    one["batchbell"].pop("results", None)  # which lists leave out
    assert one["batchbell"] in [other["batchbell"] for other in listed]
    extras: dict[str, object] = one["batchbell"]
    return extras


async def test_a_lost_batch_is_no_failed_one(served: Served, clock: Clock) -> None:
    await served.watch("batch_1")
    await served.watch("batch_2")
    await served.see(Missing("batch_1"), a_snapshot("batch_2", Status.FAILED))
    clock.advance(LOST_AFTER_SECONDS)
    await served.see(Missing("batch_1"))
    lost = await shown(served)
    assert (lost["lost"], lost["status"]) == (True, "lost")
    assert "knows no batch" in str(lost["reason"])
    assert (await shown(served, "batch_2"))["lost"] is False
    found = (await served.http.get("/v1/batches", params={"status": "lost"})).json()["data"]
    assert [(one["id"], one["status"]) for one in found] == [("batch_1", "failed")]


async def test_an_unknown_status_and_an_overdue_end_are_shown(served: Served, clock: Clock) -> None:
    await served.watch("batch_1")
    seen = a_snapshot("batch_1", Status.IN_PROGRESS)
    stamps = {"created_at": int(clock()), "expires_at": int(clock()) + 600}
    seen = replace(seen, timestamps=stamps)
    await served.see(seen)
    well = await shown(served)
    assert (well["stalled"], well["overdue"], well["reason"]) == ([], False, None)
    assert well["last_progress_at"] == int(clock())
    clock.advance(3600)
    await served.see(replace(seen, status=None, provider_status="paused_by_host"))
    odd = await shown(served)
    assert (odd["stalled"], odd["overdue"]) == (["unknown_status", "overdue"], True)
    assert "'paused_by_host'" in str(odd["reason"])
    assert odd["last_progress_at"] == int(clock())
    text = (await served.http.get("/metrics")).text
    assert 'batchbell_stalled_batches{cause="unknown_status"} 1.0' in text
    assert 'batchbell_stalled_batches{cause="overdue"} 1.0' in text


async def test_a_parked_delivery_says_why(served: Served) -> None:
    await served.watch("batch_1")
    await served.see(a_snapshot("batch_1"))
    busy = Outcome(status=503, retry_after_seconds=900, started_at=1.0, duration_ms=1.0)
    [id] = await served.try_all(busy)
    one = (await served.http.get(f"/v1/deliveries/{id}")).json()
    [listed] = (await served.http.get("/v1/deliveries")).json()["data"]
    assert "asked for a pause (429 or 503) until 20" in one["reason"]
    assert listed["reason"] == one["reason"]


async def test_a_submission_counts_what_its_parts_have_done_at_this_moment(
    served: Served, clock: Clock
) -> None:
    lines = [
        {"custom_id": f"r{n}", "method": "POST", "url": "/v1/responses", "body": {"model": "m"}}
        for n in range(4)
    ]
    made = await served.http.post("/v1/submissions", json={"requests": lines, "webhook_url": HOOK})
    id, [part] = made.json()["id"], made.json()["parts"]
    await served.watch("batch_1")

    def tie(connection: Connection) -> None:
        ours = schema.batches
        this = ours.c.id == "batch_1"
        connection.execute(ours.update().where(this).values(kind=BatchKind.PART))
        key = connection.execute(ours.select().where(this)).one().key
        row = schema.parts.update().where(schema.parts.c.id == part["id"])
        connection.execute(row.values(batch_key=key, state="running"))

    await served.context.store.write(tie)
    running = replace(
        a_snapshot("batch_1", Status.IN_PROGRESS), counts=Counts(total=4, completed=2, failed=1)
    )
    await served.see(running)

    async def read() -> list[tuple[str, object]]:
        """As a submission, in the list of them, as a batch, and in the list of those."""
        one = (await served.http.get(f"/v1/submissions/{id}")).json()
        [other] = (await served.http.get("/v1/submissions")).json()["data"]
        batch = (await served.http.get(f"/v1/batches/{id}")).json()
        batches = (await served.http.get("/v1/batches")).json()["data"]
        again = next(found for found in batches if found["id"] == id)
        return [(b["status"], b["request_counts"]) for b in (one, other, batch, again)]

    counts = {"total": 4, "completed": 2, "failed": 1}
    assert await read() == [("validating", counts)] * 4
    cancelled = (await served.http.post(f"/v1/submissions/{id}/cancel")).json()
    assert cancelled["status"] == "cancelling"
    assert await read() == [("cancelling", counts)] * 4


async def test_a_test_event_of_every_alarm_can_be_made(served: Served) -> None:
    for type_, cause in (
        ("batch.stalled", "overdue"),
        ("batch.expiring_soon", "expiring_soon"),
    ):
        made = await served.http.post("/v1/events", json={"type": type_})
        assert made.status_code in (200, 201), made.text
        [event] = [
            one
            for one in (await served.http.get("/v1/events")).json()["data"]
            if one["type"] == type_
        ]
        assert event["data"]["cause"] == cause, json.dumps(event)
        assert event["data"]["reason"]
