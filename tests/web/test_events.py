"""`/v1/events` and `/v1/deliveries`: what happened, who was told, and telling them again."""

from __future__ import annotations

from typing import Any

import pytest

from batchbell.core.model import EventType, Fault, Outcome, Status
from batchbell.core.outcome import Timings

from ..conftest import Clock
from .making import HOOK, Served, a_snapshot

REFUSED = Outcome(fault=Fault.CONNECT, detail="Connection refused.", duration_ms=1.5)
MOVED = Outcome(status=307, location="https://elsewhere.example/", duration_ms=2.0)
FINE = Outcome(
    status=204,
    request_headers={"webhook-signature": "***", "user-agent": "Batchbell/1"},
    response_headers={"x-id": "1"},
    started_at=5.25,
    duration_ms=3.0,
    timings=Timings(connect_ms=1.25, first_byte_ms=2.5),
)


async def items(served: Served, path: str, **query: Any) -> list[dict[str, Any]]:
    answer = await served.http.get(path, params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def an_end(served: Served, batch_id: str = "batch_1", url: str = HOOK) -> dict[str, Any]:
    await served.watch(batch_id, url)
    await served.see(a_snapshot(batch_id))
    return (await items(served, "/v1/events", batch_id=batch_id))[0]


async def test_an_event_is_read_as_it_is_sent(served: Served) -> None:
    """Pitfall 9: no counts, results, errors or file ids."""
    listed = await an_end(served)
    event = (await served.http.get(f"/v1/events/{listed['id']}")).json()
    assert (event["type"], event["created_at"]) == ("batch.completed", 1_789_999_000)
    assert event["data"]["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
    assert event["data"]["output_file_id"] == "file-out"
    assert event["deliveries"] == {"pending": 1, "delivered": 0, "exhausted": 0, "held": 0}
    assert {name: value for name, value in event.items() if name != "deliveries"} == listed


async def test_events_are_found_by_type_batch_and_success(served: Served) -> None:
    await an_end(served, "batch_1")
    await served.try_all(FINE)
    second = await an_end(served, "batch_2")
    await served.watch("batch_3")
    await served.see(a_snapshot("batch_3", Status.FAILED))
    await served.try_all(REFUSED)

    async def batches(**query: Any) -> list[str]:
        return [e["data"]["id"] for e in await items(served, "/v1/events", **query)]

    assert await batches() == ["batch_3", "batch_2", "batch_1"]
    assert await batches(type="batch.failed") == ["batch_3"]
    assert await batches(batch_id="batch_2") == ["batch_2"]
    assert await batches(delivery_success="false") == ["batch_3", "batch_2"]
    assert await batches(delivery_success="true") == ["batch_1"]
    assert await batches(after=second["id"]) == ["batch_1"]


async def test_a_delivery_shows_each_attempt(served: Served, clock: Clock) -> None:
    await an_end(served)
    [delivery_id] = await served.try_all(MOVED)
    waiting = (await served.http.get(f"/v1/deliveries/{delivery_id}")).json()
    assert (waiting["state"], waiting["last_status"]) == ("pending", 307)
    assert waiting["next_attempt_at"] > clock()
    assert "https://elsewhere.example/" in waiting["needs_you"]
    clock.advance(60)
    await served.try_all(FINE)
    done = (await served.http.get(f"/v1/deliveries/{delivery_id}")).json()
    assert done["attempts_deleted"] == 0
    assert (done["state"], done["attempt_count"], done["url"]) == ("delivered", 2, HOOK)
    assert [a["result"] for a in done["attempts"]] == ["failed", "delivered"]
    assert done["attempts"][0]["location"] == "https://elsewhere.example/"
    assert done["attempts"][1]["started_at"] == 5.25
    assert done["attempts"][1]["response_headers"] == {"x-id": "1"}
    assert done["attempts"][1]["request_headers"] == {
        "content-type": "application/json",
        "webhook-id": done["event_id"],
        "webhook-timestamp": "5",
        "webhook-attempt": "2",
        "webhook-signature": "***",
        "user-agent": "Batchbell/1",
    }
    assert done["attempts"][1]["timings"] == {
        "dns_ms": None,
        "connect_ms": 1.25,
        "tls_ms": None,
        "first_byte_ms": 2.5,
    }


async def test_an_attempt_that_a_crash_hid_is_unknown_and_explained(
    served: Served, clock: Clock
) -> None:
    await an_end(served)
    await served.claim()
    clock.advance(61)
    [delivery_id] = await served.try_all(FINE)
    attempts = (await served.http.get(f"/v1/deliveries/{delivery_id}")).json()["attempts"]
    assert [a["result"] for a in attempts] == ["unknown", "delivered"]
    assert "not known" in attempts[0]["explanation"].replace("\n", " ")
    assert attempts[0]["status"] is None


async def test_a_delivery_in_flight_says_so(served: Served) -> None:
    await an_end(served)
    claim = await served.claim()
    [found] = await items(served, "/v1/deliveries")
    assert (found["id"], found["in_flight"]) == (claim.deliveries[0].id, True)
    assert found["next_attempt_at"] is None


async def test_deliveries_are_found_by_state_and_event(served: Served) -> None:
    first = await an_end(served, "batch_1")
    await served.try_all(FINE)
    second = await an_end(served, "batch_2")
    [pending] = await items(served, "/v1/deliveries", state="pending")
    assert pending["event_id"] == second["id"]
    [delivered] = await items(served, "/v1/deliveries", event_id=first["id"])
    assert delivered["state"] == "delivered"
    [after] = await items(served, "/v1/deliveries", after=pending["id"])
    assert after == delivered


async def test_an_event_is_sent_again_with_the_full_schedule(served: Served) -> None:
    event = await an_end(served)
    await served.try_all(FINE)
    answer = await served.http.post(f"/v1/events/{event['id']}/resend")
    [delivery] = answer.json()["data"]
    assert (answer.status_code, delivery["state"]) == (200, "pending")
    assert await served.try_all(FINE) == [delivery["id"]]


async def test_an_event_is_sent_again_to_one_endpoint(served: Served) -> None:
    await served.watch("batch_1", HOOK + "/other")
    event = await an_end(served)
    one, _ = await items(served, "/v1/deliveries")
    await served.try_all(FINE)
    body = {"endpoint_id": one["endpoint_id"]}
    answer = await served.http.post(f"/v1/events/{event['id']}/resend", json=body)
    assert [d["id"] for d in answer.json()["data"]] == [one["id"]]


@pytest.mark.parametrize("body", [{"endpoint_id": "whe_x"}, {"endpoint_id": 7}])
async def test_an_endpoint_that_was_not_told_cannot_be_told_again(
    served: Served, body: dict[str, Any]
) -> None:
    event = await an_end(served)
    answer = await served.http.post(f"/v1/events/{event['id']}/resend", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "endpoint_id")


async def test_an_unknown_event_type_is_refused_with_those_there_are(served: Served) -> None:
    answer = await served.http.get("/v1/events", params={"type": "batch.done"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "type")
    assert all(type_ in error["message"] for type_ in EventType)
