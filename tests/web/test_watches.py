"""`/v1/watches`: one or many, in, out and gone."""

from __future__ import annotations

from typing import Any

import pytest

from batchbell.core.model import EventType, Status

from .making import HOOK, Served, a_snapshot


async def test_a_watch_is_made_read_and_found_again(served: Served) -> None:
    wanted = {
        "batch_id": "batch_1",
        "url": HOOK,
        "events": ["batch.completed", "batch.lost"],
        "metadata": {"team": "blå"},
        "account": "openai",
    }
    first = await served.http.post("/v1/watches", json=wanted)
    again = await served.http.post("/v1/watches", json=wanted)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    watch = first.json()
    assert watch["object"] == "watch"
    assert watch["metadata"] == {"team": "blå"}
    assert watch["events"] == ["batch.completed", "batch.lost"]
    assert (await served.http.get(f"/v1/watches/{watch['id']}")).json() == watch


async def test_openais_four_events_are_the_default(served: Served) -> None:
    watch = await served.watch("batch_1")
    assert watch["events"] == [
        "batch.completed",
        "batch.failed",
        "batch.expired",
        "batch.cancelled",
    ]


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_thousand_are_made_in_one_call(served: Served, wrapped: bool) -> None:
    items = [{"batch_id": f"batch_{i}", "url": HOOK} for i in range(1000)]
    body: Any = {"watches": items} if wrapped else items
    answer = await served.http.post("/v1/watches", json=body)
    made = answer.json()
    assert (answer.status_code, made["created"]) == (201, 1000)
    assert [one["batch_id"] for one in made["data"]] == [one["batch_id"] for one in items]
    again = await served.http.post("/v1/watches", json=body)
    assert (again.status_code, again.json()["created"]) == (201, 0)
    assert again.json()["data"] == made["data"]


@pytest.mark.parametrize("number", [0, 1001])
async def test_none_and_too_many_are_refused(served: Served, number: int) -> None:
    items = [{"batch_id": "b", "url": HOOK}] * number
    answer = await served.http.post("/v1/watches", json={"watches": items})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "watches")


async def test_every_problem_of_a_list_is_told_and_nothing_is_written(served: Served) -> None:
    items: list[Any] = [
        {"batch_id": "good", "url": HOOK},
        {"batch_id": "a b", "url": "nowhere"},
        7,
        {"batch_id": "b", "url": HOOK, "events": ["batch.completed", "batch.done"]},
    ]
    answer = await served.http.post("/v1/watches", json=items)
    problems = answer.json()["error"]["problems"]
    assert answer.status_code == 400
    assert [(p["index"], p["param"]) for p in problems] == [
        (1, "[1].batch_id"),
        (1, "[1].url"),
        (2, "[2]"),
        (3, "[3].events[1]"),
    ]
    assert (await served.http.get("/v1/watches")).json()["data"] == []


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown event": ({"events": ["batch.done"]}, "events[0]"),
    "no event": ({"events": []}, "events"),
    "events are text": ({"events": "batch.completed"}, "events"),
    "event is an object": ({"events": [{}]}, "events[0]"),
    "metadata is a list": ({"metadata": []}, "metadata"),
    "17 pairs": ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
    "long key": ({"metadata": {"k" * 65: ""}}, "metadata"),
    "long value": ({"metadata": {"k": "v" * 513}}, "metadata"),
    "value is a number": ({"metadata": {"k": 1}}, "metadata"),
    "NUL in a value": ({"metadata": {"k": "a\x00b"}}, "metadata"),
    "NUL in a key": ({"metadata": {"a\x00b": ""}}, "metadata"),
    "account is a number": ({"account": 1}, "account"),
}


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_field_is_named(served: Served, case: str) -> None:
    fields, param = WRONG[case]
    body = {"batch_id": "b", "url": HOOK, **fields}
    answer = await served.http.post("/v1/watches", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_an_unknown_event_is_answered_with_those_there_are(served: Served) -> None:
    body = {"batch_id": "b", "url": HOOK, "events": ["batch.done"]}
    message = (await served.http.post("/v1/watches", json=body)).json()["error"]["message"]
    assert all((type_ in message) is type_.of_batch for type_ in EventType)


async def test_a_watch_cannot_ask_for_what_happens_to_no_batch(served: Served) -> None:
    body = {"batch_id": "b", "url": HOOK, "events": ["endpoint.failing"]}
    message = (await served.http.post("/v1/watches", json=body)).json()["error"]["message"]
    assert "whole project" in message


async def test_metadata_may_be_as_large_as_openais(served: Served) -> None:
    largest = {f"{i:064}": "v" * 512 for i in range(16)}
    assert (await served.watch("b", metadata=largest))["metadata"] == largest


async def test_watches_are_paged_newest_first(served: Served) -> None:
    made = [(await served.watch(f"batch_{i}"))["id"] for i in range(5)]
    first = (await served.http.get("/v1/watches", params={"limit": 2})).json()
    assert [one["id"] for one in first["data"]] == [made[4], made[3]]
    assert (first["first_id"], first["last_id"], first["has_more"]) == (made[4], made[3], True)
    rest = (await served.http.get("/v1/watches", params={"after": made[3]})).json()
    assert [one["id"] for one in rest["data"]] == [made[2], made[1], made[0]]
    assert rest["has_more"] is False


async def test_watches_are_found_by_batch(served: Served) -> None:
    await served.watch("batch_1")
    wanted = await served.watch("batch_2")
    found = (await served.http.get("/v1/watches", params={"batch_id": "batch_2"})).json()
    assert found["data"] == [wanted]


async def test_a_watch_that_is_deleted_is_told_nothing(served: Served) -> None:
    watch = await served.watch("batch_1")
    gone = await served.http.delete(f"/v1/watches/{watch['id']}")
    assert gone.json() == {"id": watch["id"], "object": "watch.deleted", "deleted": True}
    await served.see(a_snapshot("batch_1", Status.COMPLETED))
    assert (await served.http.get("/v1/deliveries")).json()["data"] == []
    assert (await served.http.delete(f"/v1/watches/{watch['id']}")).status_code == 404


async def test_other_options_for_a_watch_that_is_there_are_not_dropped(served: Served) -> None:
    """They used to be, in silence: the caller believed to hear of failures, and never did."""
    options = {"events": ["batch.failed", "batch.lost"], "metadata": {"a": "1"}, "results": "none"}
    made = await served.watch("b", **options)
    same = {"batch_id": "b", "url": HOOK}
    for again in ({}, options, {"events": ["batch.lost", "batch.failed"]}, {"metadata": None}):
        answer = await served.http.post("/v1/watches", json={**same, **again})
        assert (answer.status_code, answer.json()) == (201, made)
    other = {"events": ["batch.completed"], "metadata": {"a": "2"}, "results": "none"}
    answer = await served.http.post("/v1/watches", json={**same, **other})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (409, "watch_differs")
    assert [one["param"] for one in error["problems"]] == ["events", "metadata"]
    for words in ('["batch.failed", "batch.lost"], not ["batch.completed"]', made["id"]):
        assert words in error["message"]
    awaited = await served.http.post("/batch-awaiter", json={"id": "b", "webhookUrl": HOOK})
    assert awaited.status_code == 201


async def test_a_list_that_differs_in_one_writes_none(served: Served) -> None:
    await served.watch("b", results="none")
    items = [
        {"batch_id": "new", "url": HOOK, "results": "link"},
        {"batch_id": "b", "url": HOOK, "results": "inline"},
        {"batch_id": "new", "url": HOOK, "results": "inline"},
    ]
    answer = await served.http.post("/v1/watches", json={"watches": items})
    problems = answer.json()["error"]["problems"]
    assert answer.status_code == 409
    assert [(one["index"], one["param"]) for one in problems] == [
        (1, "watches[1].results"),
        (2, "watches[2].results"),
    ]
    listed = (await served.http.get("/v1/watches")).json()["data"]
    assert [(one["batch_id"], one["results"]) for one in listed] == [("b", "none")]


async def test_a_watch_is_changed_for_what_is_yet_to_come(served: Served) -> None:
    made = await served.watch("b", metadata={"a": "1"})
    path = f"/v1/watches/{made['id']}"
    wanted = {"events": ["batch.failed"], "metadata": None, "results": "none"}
    changed = await served.http.post(path, json=wanted)
    assert changed.status_code == 200, changed.text
    expected = {"events": ["batch.failed"], "metadata": {}, "results": "none"}
    assert changed.json() == {**made, **expected}
    assert (await served.http.get(path)).json() == changed.json()
    assert (await served.http.post(path, json={})).json() == changed.json()
    await served.see(a_snapshot("b"))
    assert (await served.http.get("/v1/deliveries")).json()["data"] == []
    assert (await served.http.post("/v1/watches/wat_x", json={})).status_code == 404
    wrong = await served.http.post(path, json={"url": HOOK, "events": []})
    assert [one["param"] for one in wrong.json()["error"]["problems"]] == ["url", "events"]
