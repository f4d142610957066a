"""What is Mistral's own, beside what every dialect promises."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from batchbell.core.errors import (
    ProviderAuthError,
    ProviderNotFound,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
)
from batchbell.core.model import Counts, Snapshot, Status
from batchbell.core.results import Arrived
from batchbell.files.lines import Spent, answer
from batchbell.files.provider_files import unpack
from batchbell.providers import Provider
from batchbell.providers.lists import snapshot_in
from batchbell.providers.mistral import STATUSES, Row, snapshot_of
from batchbell.providers.protocol import Order
from tests.providers import benches
from tests.providers.benches import Bench, connected
from tests.providers.canned import Canned, served

ID = "5c24e1ef-0ce4-4ef6-8a5e-f2e3c1f2a0d1"
JOB: dict[str, Any] = {
    "id": ID,
    "object": "batch",
    "input_files": ["in-1"],
    "metadata": {"job": "nightly"},
    "endpoint": "/v1/chat/completions",
    "model": "mistral-small-latest",
    "agent_id": None,
    "output_file": "out-1",
    "error_file": None,
    "errors": [],
    "status": "SUCCESS",
    "created_at": 1_700_000_000,
    "started_at": 1_700_000_010,
    "completed_at": 1_700_000_100,
    "total_requests": 3,
    "completed_requests": 3,
    "succeeded_requests": 2,
    "failed_requests": 1,
}


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with benches.mistral() as bench:
        yield bench


@pytest.fixture
async def way(canned: Canned) -> AsyncIterator[Provider]:
    async for provider in connected("mistral", canned.base_url):
        yield provider


def read(**changes: Any) -> Snapshot:
    return snapshot_in(json.dumps({**JOB, **changes}).encode(), Row, snapshot_of)


async def lines_of(provider: Provider, reference: str, folder: Path) -> list[Any]:
    sent, target = folder / "sent", folder / "lines"
    arrived = await provider.results(reference, sent, most_bytes=10**8)
    unpack(sent, target, arrived, most_bytes=10**8)
    return [json.loads(line) for line in target.read_bytes().splitlines() if line]


def test_a_job_is_read() -> None:
    assert read() == Snapshot(
        id=ID,
        provider_status="SUCCESS",
        status=Status.COMPLETED,
        counts=Counts(total=3, completed=2, failed=1),
        endpoint="/v1/chat/completions",
        model="mistral-small-latest",
        input_file_id="in-1",
        output_file_id="out-1",
        timestamps={
            "created_at": 1_700_000_000,
            "in_progress_at": 1_700_000_010,
            "completed_at": 1_700_000_100,
        },
        metadata={"job": "nightly"},
    )


@pytest.mark.parametrize(("word", "status"), STATUSES.items())
def test_each_word_is_understood_in_either_case(word: str, status: Status) -> None:
    assert read(status=word.upper()).status is read(status=word).status is status
    stamps = {Status.EXPIRED: "expired_at", Status.CANCELLED: "cancelled_at"}
    if status in stamps:
        assert read(status=word).timestamps[stamps[status]] == 1_700_000_100


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"total_requests": "3", "succeeded_requests": "2", "failed_requests": "1"}, (3, 2, 1)),
        ({"succeeded_requests": None}, (3, 2, 1)),
        ({"failed_requests": None}, (3, 2, 1)),
        ({"completed_requests": None}, (3, 2, 1)),
        ({"completed_requests": 0, "succeeded_requests": 0, "failed_requests": 0}, (3, 0, 0)),
    ],
)
def test_counts_are_read_where_one_is_missing(
    changes: dict[str, Any], counts: tuple[int, int, int]
) -> None:
    total, completed, failed = counts
    assert read(**changes).counts == Counts(total=total, completed=completed, failed=failed)


def test_odd_values_are_left_out() -> None:
    nothing: dict[str, Any] = {name: {} for name in JOB} | {"id": ID, "status": "RUNNING"}
    found = read(**nothing)
    assert (found.counts, found.input_file_id, found.output_file_id) == (None, None, None)
    assert (found.timestamps, found.problems) == ({}, ())
    assert read(input_files=[], output_file="", error_file="").answers == ()
    assert read(input_files="in-1").input_file_id == "in-1"


def test_errors_say_how_many_requests_they_are_about() -> None:
    found = read(
        status="FAILED",
        errors=[{"message": "No such model", "count": 200}, {"message": "Bad", "count": 1}, "?"],
    )
    assert [one.message for one in found.problems] == ["No such model (200 times)", "Bad", "?"]


async def test_several_input_files_are_one_input(bench: Bench, tmp_path: Path) -> None:
    jobs = bench.sandbox.provider
    contents = [b'{"custom_id": "a", "body": {}}', b'{"custom_id": "b", "body": {}}\n']
    ids = [jobs.upload(one, filename="in", purpose="batch")["id"] for one in contents]
    made = jobs.create({"endpoint": "/v1/chat/completions", "input_files": ids})
    seen = await bench.provider.retrieve(made["id"])
    assert seen.input_file_id == ",".join(ids)
    lines = await lines_of(bench.provider, seen.input_file_id, tmp_path)
    assert [line["custom_id"] for line in lines] == ["a", "b"]
    await bench.provider.delete(seen.input_file_id)
    with pytest.raises(ProviderNotFound):
        await lines_of(bench.provider, ids[1], tmp_path)


async def test_requests_go_up_in_mistrals_form_and_the_model_beside_them(
    bench: Bench, tmp_path: Path
) -> None:
    requests = tmp_path / "part-0001.jsonl"
    line = {"custom_id": "a", "method": "POST", "url": "/v1/ocr", "body": {"pages": [1]}}
    requests.write_text(json.dumps(line) + "\n", encoding="utf-8")
    file = await bench.provider.upload(requests, name="in.jsonl")
    assert file is not None
    assert os.listdir(tmp_path) == [requests.name], "nothing is left behind"
    (kept,) = await lines_of(bench.provider, file, tmp_path)
    assert kept == {"custom_id": "a", "body": {"pages": [1]}}
    order = Order(
        requests=requests,
        file=file,
        endpoint="/v1/ocr",
        model="mistral-ocr-latest",
        metadata={"job": "a"},
        tag=("t", "1"),
    )
    made = await bench.provider.submit(order)
    assert (made.endpoint, made.model, made.input_file_id) == ("/v1/ocr", order.model, file)
    assert (made.metadata, made.counts and made.counts.total) == ({"job": "a", "t": "1"}, 1)


async def test_answers_are_taken_from_the_job_where_it_names_no_file(
    bench: Bench, tmp_path: Path
) -> None:
    jobs = bench.sandbox.provider
    id = jobs.add_batch(total=4, inline=True)  # type: ignore[call-arg]
    assert (await bench.provider.retrieve(id)).results_ref is None
    jobs.finish(id, "completed", failed=1)
    seen = await bench.provider.retrieve(id)
    assert seen.answers == (f"jobs/{id}",)
    lines = await lines_of(bench.provider, seen.answers[0], tmp_path)
    assert sorted(line["response"]["status_code"] for line in lines) == [200, 200, 200, 400]
    (listed,) = (await bench.provider.list_page()).batches
    assert listed.answers == (), "it may name its files when it is read by its id"
    await bench.provider.delete(seen.answers[0])
    with pytest.raises(ProviderNotFound):
        await bench.provider.retrieve(id)


async def test_files_that_are_named_late_are_taken_all_the_same(
    bench: Bench, tmp_path: Path
) -> None:
    jobs = bench.sandbox.provider
    id = jobs.add_batch(total=4)
    jobs.finish(id, "completed", failed=1)
    jobs.faults.add("late_file", times=1)
    seen = await bench.provider.retrieve(id)
    assert seen.answers == (f"jobs/{id}",)
    jobs.calls.clear()
    lines = await lines_of(bench.provider, seen.answers[0], tmp_path)
    assert len({line["custom_id"] for line in lines}) == 4
    assert jobs.calls == {"retrieve": 1, "content": 2}


async def test_a_page_is_asked_for_by_its_number_and_status(way: Provider, canned: Canned) -> None:
    rows = [{**JOB, "id": f"{n}"} for n in range(100)]
    for total, follows in ((350, "3"), (300, None), ("350", "3"), (None, "3"), ({}, "3")):
        canned.body = json.dumps({"object": "list", "data": rows, "total": total}).encode()
        assert (await way.list_page("2", open_only=True)).next_cursor == follows
    asked = canned.asked[-1]
    assert asked.path == "/v1/batch/jobs"
    assert asked.query.getall("status") == ["QUEUED", "RUNNING", "CANCELLATION_REQUESTED"]
    assert (asked.query["page"], asked.query["page_size"]) == ("2", "100")
    canned.body = json.dumps({"object": "list", "total": 7, "data": []}).encode()
    assert (await way.list_page()).next_cursor is None
    assert "status" not in canned.asked[-1].query


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"detail": "Unauthorized"}, ProviderAuthError),
        (401, {"message": "Unauthorized", "request_id": "r"}, ProviderAuthError),
        (429, {"message": "Requests rate limit exceeded"}, ProviderRateLimited),
        (
            429,
            {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited"},
            ProviderRateLimited,
        ),
        (
            404,
            {"object": "error", "message": f"Job {ID} not found", "type": "not_found"},
            ProviderNotFound,
        ),
        (404, {"detail": "Batch job not found"}, ProviderNotFound),
        (404, {"detail": "Not Found"}, ProviderUnavailable),
        (404, {"message": "no Route matched with those values"}, ProviderUnavailable),
        (
            422,
            {"object": "error", "message": {"detail": [{"loc": ["path", "job_id"], "msg": "No"}]}},
            ProviderRejected,
        ),
        (422, {"detail": [{"type": "t", "loc": ["query", "page"], "msg": "No"}]}, ProviderRejected),
        (503, {"object": "error", "message": "Overloaded", "type": "x"}, ProviderUnavailable),
        (200, {"object": "error", "message": "Internal server error"}, ProviderUnavailable),
    ],
)
async def test_errors_are_judged_by_their_shape(
    way: Provider, canned: Canned, status: int, body: Any, kind: type[Exception]
) -> None:
    canned.status, canned.body = status, json.dumps(body).encode()
    with pytest.raises(kind):
        await way.retrieve(ID)


async def test_where_a_value_is_wrong_is_said(way: Provider, canned: Canned) -> None:
    canned.status = 422
    wrong = {"type": "int_parsing", "loc": ["query", "page"], "msg": "Input should be an integer"}
    canned.body = json.dumps({"detail": [wrong]}).encode()
    with pytest.raises(ProviderRejected) as error:
        await way.retrieve(ID)
    assert error.value.message == "query.page: Input should be an integer"
    with pytest.raises(ProviderNotFound):
        await way.retrieve("batch_1")


def test_usage_is_read_of_a_line() -> None:
    used = {"prompt_tokens": 15, "completion_tokens": 9, "total_tokens": 24}
    body = {"model": "mistral-small-2506", "object": "chat.completion", "usage": used}
    line = {
        "id": "batch-1-0",
        "custom_id": "0",
        "response": {"status_code": 200, "body": body},
        "error": None,
    }
    found = answer(json.dumps(line).encode())
    assert found is not None
    assert found.spent == Spent("mistral-small-2506", 15, 0, 9, 0)


async def test_files_that_come_packed_are_not_joined(tmp_path: Path) -> None:
    packed = Canned(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    async with served(packed) as host:
        async for provider in connected("mistral", host.base_url):
            with pytest.raises(ProviderUnavailable, match="packed"):
                await provider.results("a,b", tmp_path / "sent", most_bytes=1000)
            alone = await provider.results("a", tmp_path / "sent", most_bytes=1000)
            assert alone == Arrived(encoding="gzip", content_type=alone.content_type)
