"""Each fault, as a plain HTTP client sees it."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from batchbell.sandbox import Sandbox, SandboxProvider

from .making import KEY


async def get(
    http: aiohttp.ClientSession, sandbox: Sandbox, path: str = "/batches", **query: str
) -> tuple[int, bytes, dict[str, str]]:
    async with http.get(sandbox.base_url + path, params=query) as answer:
        return answer.status, await answer.read(), dict(answer.headers)


async def test_a_rate_limit_says_when_to_come_back(
    http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    fault = sandbox.provider.faults.add(
        "rate_limited", route="list", times=2, retry_after_seconds=7
    )
    for _ in range(2):
        status, body, headers = await get(http, sandbox)
        assert (status, headers["Retry-After"]) == (429, "7")
        assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"
    assert (await get(http, sandbox))[0] == 200
    assert fault.spent == 2
    assert sandbox.provider.faults.waiting() == []


async def test_faults_of_one_route_are_spent_in_the_order_they_were_added(
    http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    sandbox.provider.faults.add("status", status=500)
    sandbox.provider.faults.add("status", status=503)
    assert [(await get(http, sandbox))[0] for _ in range(3)] == [500, 503, 200]


async def test_a_fault_leaves_other_routes_alone(
    http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    batch_id = sandbox.provider.add_batch()
    sandbox.provider.faults.add("status", route="retrieve", times=None, status=502)
    assert (await get(http, sandbox))[0] == 200
    assert (await get(http, sandbox, f"/batches/{batch_id}"))[0] == 502
    sandbox.provider.faults.clear()
    assert (await get(http, sandbox, f"/batches/{batch_id}"))[0] == 200


async def test_a_fault_for_one_batch_leaves_the_others_alone(
    http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    one, other = sandbox.provider.add_batches(2)
    sandbox.provider.faults.add("status", route="retrieve", batch_id=one)
    assert (await get(http, sandbox, f"/batches/{other}"))[0] == 200
    assert (await get(http, sandbox, f"/batches/{one}"))[0] == 500


async def test_a_fault_may_let_calls_by_first(
    http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    sandbox.provider.faults.add("status", skip_calls=2)
    assert [(await get(http, sandbox))[0] for _ in range(4)] == [200, 200, 500, 200]


async def test_a_revoked_key_answers_401(http: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    sandbox.provider.faults.add("unauthorized")
    status, body, _ = await get(http, sandbox)
    assert (status, json.loads(body)["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("status", [200, 502])
async def test_a_proxy_answers_with_a_page(
    http: aiohttp.ClientSession, sandbox: Sandbox, status: int
) -> None:
    sandbox.provider.faults.add("html", status=status)
    seen, body, headers = await get(http, sandbox)
    assert (seen, headers["Content-Type"]) == (status, "text/html; charset=utf-8")
    assert body.startswith(b"<!DOCTYPE html>")


async def test_a_slow_answer_is_the_right_one(
    http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    sandbox.provider.faults.add("slow", seconds=30)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(get(http, sandbox), 0.2)
    sandbox.provider.faults.add("slow", seconds=0.01)
    assert (await get(http, sandbox))[0] == 200


async def test_a_call_hangs_until_it_is_released(
    http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    sandbox.provider.faults.add("hang", times=2)
    calls = [asyncio.create_task(get(http, sandbox)) for _ in range(2)]
    await asyncio.wait_for(sandbox.provider.faults.until_hanging(2), 10)
    assert not any(call.done() for call in calls)
    sandbox.provider.faults.release()
    assert [(await call)[0] for call in calls] == [200, 200]


async def test_a_call_that_hangs_does_not_keep_the_server_from_stopping(
    http: aiohttp.ClientSession,
) -> None:
    async with Sandbox() as sandbox:
        sandbox.provider.faults.add("hang", times=None)
        sandbox.provider.faults.add("slow", times=None, seconds=3600, route="files")
        calls = [asyncio.create_task(get(http, sandbox, path)) for path in ("/batches", "/files")]
        await sandbox.provider.faults.until_hanging(2)
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_reset_is_seen_as_one(http: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    sandbox.provider.faults.add("reset", times=None)
    with pytest.raises(aiohttp.ClientOSError) as caught:
        await http.post(sandbox.base_url + "/batches", json={})
    assert isinstance(caught.value, ConnectionResetError) or "reset" in str(caught.value)


async def test_json_that_is_cut_in_half_does_not_parse(
    http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    sandbox.provider.add_batches(3)
    sandbox.provider.faults.add("truncated")
    status, body, _ = await get(http, sandbox)
    assert status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)


async def test_a_connection_that_closes_early_is_noticed(
    http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    sandbox.provider.add_batches(3)
    sandbox.provider.faults.add("cut_off")
    with pytest.raises(aiohttp.ClientPayloadError):
        await get(http, sandbox)


@pytest.mark.parametrize("size", [1_000, 300_000])
async def test_a_file_may_be_cut_off_too(
    http: aiohttp.ClientSession, sandbox: Sandbox, size: int
) -> None:
    file = sandbox.provider.upload(b"x" * size, filename="a.jsonl", purpose="batch")
    fault = sandbox.provider.faults.add("cut_off", route="content")
    with pytest.raises(aiohttp.ClientPayloadError):
        await get(http, sandbox, f"/files/{file['id']}/content")
    assert fault.spent == 1
    assert len((await get(http, sandbox, f"/files/{file['id']}/content"))[1]) == size


async def test_a_missing_batch_answers_404_and_is_left_out_of_the_list(
    http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    one, other = sandbox.provider.add_batches(2)
    sandbox.provider.faults.add("missing", batch_id=one, times=2)
    assert (await get(http, sandbox, f"/batches/{one}"))[0] == 404
    assert ids_of((await get(http, sandbox))[1]) == [other]
    assert ids_of((await get(http, sandbox))[1]) == [other, one]


async def test_one_row_of_a_good_page_makes_no_sense(
    http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    oldest, middle, newest = sandbox.provider.add_batches(3)
    faults = sandbox.provider.faults
    faults.add("rewrite", route="list", batch_id=middle, drop=["status"])
    faults.add("rewrite", route="list", batch_id=oldest, fields={"status": 42, "errors": "?"})
    rows = json.loads((await get(http, sandbox))[1])["data"]
    assert [row.get("status") for row in rows] == ["in_progress", None, 42]
    assert [row["id"] for row in rows] == [newest, middle, oldest]


async def test_an_empty_error_file_id_and_an_unknown_status_can_be_shown(
    http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    batch_id = sandbox.provider.add_batch()
    fields = {"error_file_id": "", "status": "some_new_word"}
    sandbox.provider.faults.add("rewrite", fields=fields)
    shown = json.loads((await get(http, sandbox, f"/batches/{batch_id}"))[1])
    assert (shown["error_file_id"], shown["status"]) == ("", "some_new_word")


async def test_the_cursor_shifts_while_somebody_pages(
    http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    ids = sandbox.provider.add_batches(9)[::-1]
    sandbox.provider.faults.add("shift", rows=2, skip_calls=1)
    first = ids_of((await get(http, sandbox, limit="3"))[1])
    second = ids_of((await get(http, sandbox, limit="3", after=first[-1]))[1])
    assert (first, second) == (ids[:3], ids[5:8])
    again = ids_of((await get(http, sandbox, limit="100"))[1])
    assert again[1:] == ids
    assert again[0] not in ids


async def test_a_list_may_show_its_batches_as_they_were_when_they_were_made(
    http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    one, other = sandbox.provider.add_batches(2)
    for id in (one, other):
        sandbox.provider.finish(id, "completed", failed=1)
    sandbox.provider.faults.add("stale", times=None, batch_id=one)
    first, stale = json.loads((await get(http, sandbox))[1])["data"]
    assert (first["status"], stale["status"]) == ("completed", "validating")
    assert stale["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert {stale[name] for name in ("output_file_id", "error_file_id", "completed_at")} == {None}
    assert stale.keys() == first.keys()
    assert json.loads((await get(http, sandbox, f"/batches/{one}"))[1])["status"] == "completed"
    sandbox.provider.faults.add("stale")
    rows = json.loads((await get(http, sandbox))[1])["data"]
    assert [row["status"] for row in rows] == ["validating"] * 2


async def test_a_list_may_begin_anew_for_ever(
    http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    ids = sandbox.provider.add_batches(4)[::-1]
    sandbox.provider.faults.add("loop", times=3)
    for after in ({}, {"after": ids[1]}, {"after": ids[1]}):
        page = json.loads((await get(http, sandbox, limit="2", **after))[1])
        assert [row["id"] for row in page["data"]] == ids[:2]
        assert (page["has_more"], page["last_id"]) == (True, ids[1])
    assert ids_of((await get(http, sandbox, limit="2", after=ids[1]))[1]) == ids[2:]


async def test_a_list_may_be_a_bomb(http: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    id = sandbox.provider.add_batch()
    sandbox.provider.faults.add("bomb", rows=1_000, times=None)
    assert json.loads((await get(http, sandbox))[1])["data"] == [0] * 1_000
    assert (await get(http, sandbox, f"/batches/{id}"))[0] == 200


async def test_every_row_may_be_spoiled(http: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    sandbox.provider.add_batches(3)
    fault = sandbox.provider.faults.add(
        "rewrite", route="list", every_row=True, drop=["id"], fields={"request_counts": None}
    )
    for row in json.loads((await get(http, sandbox))[1])["data"]:
        assert ("id" in row, row["request_counts"]) == (False, None)
    assert fault.spent == 1


@pytest.mark.parametrize("kind", ["rate_limited", "status", "html"])
async def test_a_fault_brings_its_own_headers(
    http: aiohttp.ClientSession, sandbox: Sandbox, kind: str
) -> None:
    sandbox.provider.faults.add(kind, headers={"Retry-After": "soon"})
    assert (await get(http, sandbox))[2]["Retry-After"] == "soon"


def ids_of(body: bytes) -> list[str]:
    return [row["id"] for row in json.loads(body)["data"]]


@pytest.mark.parametrize(
    ("kind", "details"),
    [
        ("no_such_kind", {}),
        ("status", {"route": "no_such_route"}),
        ("missing", {}),
        ("status", {"no_such_detail": 1}),
        ("stale", {"route": "retrieve"}),
        ("bomb", {"route": "content"}),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(kind: str, details: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        SandboxProvider().faults.add(kind, **details)


async def test_calls_are_counted_whatever_becomes_of_them(
    http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    sandbox.provider.faults.add("status")
    await get(http, sandbox)
    async with http.get(sandbox.base_url + "/batches", headers={"Authorization": "Bearer no"}):
        pass
    await get(http, sandbox, "/batches/batch_none", x="1")
    assert sandbox.provider.calls == {"list": 2, "retrieve": 1}
    assert list(sandbox.provider.log) == [
        ("GET", "/v1/batches"),
        ("GET", "/v1/batches"),
        ("GET", "/v1/batches/batch_none?x=1"),
    ]


async def test_a_provider_that_went_away_comes_back_on_the_same_port(
    http: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    batch_id = sandbox.provider.add_batch()
    await sandbox.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await get(http, sandbox)
    await sandbox.start()
    assert ids_of((await get(http, sandbox))[1]) == [batch_id]


@pytest.mark.parametrize("body", ["", "[]", "{", '"text"'])
async def test_a_body_that_is_no_object_is_refused_in_openais_shape(
    http: aiohttp.ClientSession, sandbox: Sandbox, body: str
) -> None:
    async with http.post(sandbox.base_url + "/batches", data=body) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["type"] == "invalid_request_error"
    async with http.post(sandbox.base_url + "/files", data=body) as answer:
        assert answer.status == 400
    assert http.headers["Authorization"] == f"Bearer {KEY}"
