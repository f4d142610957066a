"""What is the Gemini API's own, beside what every dialect promises.

`recorded_gemini.json` holds a batch and its results as the API gave them in July 2026. They come
from the test data of ellmer (MIT, Copyright (c) ellmer authors); the `key` of each line was added
here, and signatures were shortened.
"""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from batchbell.core.errors import (
    MalformedBatch,
    ProviderAuthError,
    ProviderBillingError,
    ProviderError,
    ProviderNotFound,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
)
from batchbell.core.model import BatchOutcome, BatchProblem, Counts, Status, outcome_of
from batchbell.files.lines import Fate, Spent, answer
from batchbell.files.preflight import prepare
from batchbell.providers import Order, Provider
from batchbell.providers.gemini import EMBED, GENERATE, SHOWN, KeyedLines, Row, snapshot_of
from batchbell.providers.lists import snapshot_in
from batchbell.providers.profiles import GEMINI
from tests.providers import benches
from tests.providers.benches import KEY, Bench, connected
from tests.providers.canned import Canned, served
from tests.providers.test_conformance import answers_of, read

RECORDED = json.loads((Path(__file__).parent / "recorded_gemini.json").read_text(encoding="utf-8"))
ID = RECORDED["batch"]["name"]
FILE = f"files/batch-{ID.removeprefix('batches/')}"


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with benches.gemini() as bench:
        yield bench


@pytest.fixture
async def way(canned: Canned) -> AsyncIterator[Provider]:
    async for provider in connected("gemini", canned.base_url.removesuffix("/v1")):
        yield provider


def batch_json(*, drop: tuple[str, ...] = (), more: Any = None, **changes: Any) -> bytes:
    """The recorded batch; `changes` are of its metadata, and `more` is beside them."""
    metadata = {**RECORDED["batch"]["metadata"], **changes}
    kept = {name: value for name, value in metadata.items() if name not in drop}
    return json.dumps({**RECORDED["batch"], "metadata": kept, **(more or {})}).encode()


def snapshot(body: bytes) -> Any:
    return snapshot_in(body, Row, snapshot_of)


def test_a_recorded_batch_is_read() -> None:
    found = snapshot(batch_json())
    assert (found.id, found.status) == (ID, Status.COMPLETED)
    assert (found.provider_status, found.model) == ("BATCH_STATE_SUCCEEDED", "gemini-3.5-flash")
    assert found.counts == Counts(total=4, completed=4, failed=0)  # the zero was left out
    assert found.timestamps == {
        "created_at": 1783003259,
        "expires_at": 1783003259 + 48 * 3600,
        "completed_at": 1783003291,
    }
    assert (found.input_file_id, found.answers) == ("files/9ipl31k7go00", (FILE,))
    assert found.metadata == {"display_name": "ellmer-1783003258"}
    assert found.problems == ()


def test_recorded_results_keep_their_bodies_and_say_what_they_used() -> None:
    texts = []
    for line in RECORDED["results"]:
        changed = KeyedLines().answer(json.dumps(line).encode())
        shown, found = json.loads(changed), answer(changed)
        assert (shown["custom_id"], shown["error"]) == (line["key"], None)
        assert shown["response"] == {
            "status_code": 200,
            "request_id": None,
            "body": line["response"],
        }
        texts.append(shown["response"]["body"]["candidates"][0]["content"]["parts"][0]["text"])
        used = line["response"]["usageMetadata"]
        thought = used["thoughtsTokenCount"]
        made = used["candidatesTokenCount"] + thought
        assert found is not None
        assert found.fate is Fate.SUCCEEDED
        assert found.spent == Spent("gemini-3.5-flash", used["promptTokenCount"], 0, made, thought)
        assert used["totalTokenCount"] == used["promptTokenCount"] + made
    assert texts == ["Des Moines", "Albany", "Sacramento", "Austin"]


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("QUEUED", Status.VALIDATING),
        ("PENDING", Status.VALIDATING),
        ("RUNNING", Status.IN_PROGRESS),
        ("UPDATING", Status.IN_PROGRESS),
        ("PAUSED", Status.IN_PROGRESS),
        ("CANCELLING", Status.CANCELLING),
        ("CANCELLED", Status.CANCELLED),
        ("FAILED", Status.FAILED),
        ("EXPIRED", Status.EXPIRED),
        ("SUCCEEDED", Status.COMPLETED),
        ("PARTIALLY_SUCCEEDED", Status.COMPLETED),
        ("UNSPECIFIED", None),
        ("RETICULATING", None),
    ],
)
def test_states_are_read_by_their_endings(word: str, status: Status | None) -> None:
    for state in (f"BATCH_STATE_{word}", f"JOB_STATE_{word}", word.lower()):
        found = snapshot(batch_json(state=state))
        assert (found.provider_status, found.status) == (state, status)


@pytest.mark.parametrize(
    ("stats", "counts"),
    [
        ({"requestCount": "3", "failedRequestCount": "3"}, Counts(total=3, completed=0, failed=3)),
        (
            {"requestCount": 3, "successfulRequestCount": 1, "pendingRequestCount": "2"},
            Counts(total=3, completed=1, failed=0),
        ),
        (
            {"successfulRequestCount": "2"},
            Counts(total=2, completed=2, failed=0, whole=False),
        ),
        ({}, None),
        (None, None),
        ("", None),
    ],
)
def test_counts_come_as_text_and_without_zeros(stats: Any, counts: Counts | None) -> None:
    assert snapshot(batch_json(batchStats=stats)).counts == counts


def test_a_batch_that_expired_has_no_results_whatever_was_counted() -> None:
    stats = {"requestCount": "4", "successfulRequestCount": "3"}
    body = batch_json(
        state="BATCH_STATE_EXPIRED", batchStats=stats, output={}, more={"response": {}}
    )
    found = snapshot(body)
    assert found.answers == ()
    assert outcome_of(found.counts, Status.EXPIRED) is BatchOutcome.NONE


def test_a_batch_that_failed_as_a_whole_says_why() -> None:
    error = {"code": 3, "message": "Line 3 is no request.", "details": []}
    body = batch_json(
        drop=("output",), state="BATCH_STATE_FAILED", more={"error": error, "response": None}
    )
    found = snapshot(body)
    assert (found.status, found.answers) == (Status.FAILED, ())
    assert found.problems == (BatchProblem(code="INVALID_ARGUMENT", message=error["message"]),)
    assert "failed_at" in found.timestamps


@pytest.mark.parametrize("nothing", [None, "", [], {}])
def test_what_is_nothing_may_be_written_in_many_ways(nothing: Any) -> None:
    body = batch_json(output=nothing, displayName=nothing, endTime=nothing, more={"error": nothing})
    found = snapshot(body)
    assert (found.answers, found.problems, found.metadata) == ((FILE,), (), None)
    nowhere = snapshot(batch_json(output=nothing, more={"response": nothing}))
    assert nowhere.answers == ()  # its requests are in a file: so will be the answers


def test_a_batch_whose_requests_came_with_the_call_holds_its_answers() -> None:
    for changes in ({"more": {"response": {"inlinedResponses": {}}}}, {"more": {"response": {}}}):
        found = snapshot(batch_json(drop=("output", "inputConfig"), **changes))
        assert (found.answers, found.output_file_id) == ((ID,), None)
    running = snapshot(
        batch_json(
            drop=("output", "inputConfig"), state="BATCH_STATE_RUNNING", more={"response": {}}
        )
    )
    assert running.answers == ()


@pytest.mark.parametrize("state", [None, "", 4, {}])
def test_a_batch_without_a_state_is_malformed(state: Any) -> None:
    with pytest.raises(MalformedBatch, match="no state"):
        snapshot(batch_json(state=state))


@pytest.mark.parametrize(
    ("error", "status", "passing"),
    [
        ({"code": 3, "message": "Bad."}, 400, False),
        ({"code": 400, "message": "Bad.", "status": "INVALID_ARGUMENT"}, 400, False),
        ({"code": "8", "message": "Enough."}, 429, True),
        ({"status": "UNAVAILABLE"}, 503, True),
        ({"code": 13}, 500, True),
        ({"message": "?"}, 500, True),
        ("boom", 500, True),
    ],
)
def test_a_request_that_failed_has_the_http_status_of_its_code(
    error: Any, status: int, passing: bool
) -> None:
    changed = KeyedLines().answer(json.dumps({"key": "a", "error": error}).encode())
    shown, found = json.loads(changed), answer(changed)
    assert (shown["custom_id"], shown["response"]["status_code"]) == ("a", status)
    assert shown["response"]["body"] == {"error": error}
    assert found is not None
    assert (found.fate, found.passing) == (Fate.FAILED, passing)


@pytest.mark.parametrize("count", ["24", 24])
def test_an_embedding_says_what_it_was_made_of(count: Any) -> None:
    body = {"embedding": {"values": [0.5, -0.5]}, "tokenCount": count}
    found = answer(KeyedLines().answer(json.dumps({"key": "a", "response": body}).encode()))
    assert found is not None
    assert found.spent == Spent("unknown", 24, 0, 0, 0)


@pytest.mark.parametrize(
    ("line", "custom_id"),
    [
        ({"key": "a", "response": {}}, "a"),
        ({"key": 7, "response": {}}, 7),
        ({"metadata": {"key": "a"}, "response": {}}, "a"),
        ({"key": None, "metadata": {"key": "a"}, "response": {}}, "a"),
        ({"metadata": {}, "response": {}}, None),
        ({"response": {}, "error": {}}, None),
    ],
)
def test_the_key_says_whose_an_answer_is(line: Any, custom_id: Any) -> None:
    shown = json.loads(KeyedLines().answer(json.dumps(line).encode()))
    assert (shown["custom_id"], shown["response"]["status_code"]) == (custom_id, 200)


def test_a_line_of_an_input_file_names_its_request() -> None:
    line = json.dumps({"key": "a", "request": {"contents": []}}).encode()
    assert json.loads(KeyedLines().request(line)) == {"custom_id": "a", "body": {"contents": []}}
    bare = json.loads(KeyedLines().request(b'{"request": {}}'))
    assert bare == {"custom_id": None, "body": {}}
    assert KeyedLines().request(b"no JSON") == b"no JSON"
    assert json.loads(KeyedLines().own(KeyedLines().request(line))) == json.loads(line)


@pytest.mark.parametrize(
    "line",
    [b"null", b"{}", b'{"key": "a"}', b'{"key": "a", "answer": {}}', b'{"key": "a", "resp'],
)
def test_a_line_that_is_not_understood_stays_as_it_is(line: bytes) -> None:
    assert KeyedLines().answer(line) == line


def error_json(code: int, status: str, message: str, *details: Any) -> bytes:
    error = {"code": code, "message": message, "status": status, "details": details}
    return json.dumps({"error": error}).encode()


BAD_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}
QUOTA = "You exceeded your current quota, please check your plan and billing details."


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (error_json(404, "NOT_FOUND", "Requested entity was not found."), ProviderNotFound),
        (error_json(404, "NOT_FOUND", "Not Found"), ProviderUnavailable),  # maybe the address
        (error_json(400, "INVALID_ARGUMENT", "API key not valid.", BAD_KEY), ProviderAuthError),
        (error_json(401, "UNAUTHENTICATED", "Who are you?"), ProviderAuthError),
        (error_json(403, "PERMISSION_DENIED", "Not yours."), ProviderAuthError),
        (
            error_json(403, "PERMISSION_DENIED", f"No access to {ID}, or it may not exist."),
            ProviderNotFound,
        ),
        (
            error_json(403, "PERMISSION_DENIED", "No access, or it may not exist."),
            ProviderAuthError,
        ),
        (error_json(400, "INVALID_ARGUMENT", "Bad page token."), ProviderRejected),
        (error_json(429, "RESOURCE_EXHAUSTED", "Slower."), ProviderRateLimited),
        (error_json(429, "RESOURCE_EXHAUSTED", QUOTA), ProviderBillingError),
        (error_json(429, "RESOURCE_EXHAUSTED", QUOTA, RETRY), ProviderRateLimited),
        (error_json(500, "INTERNAL", "Oops."), ProviderUnavailable),
        (error_json(503, "UNAVAILABLE", "The model is overloaded."), ProviderUnavailable),
        (error_json(504, "DEADLINE_EXCEEDED", "Too large."), ProviderUnavailable),
        (b"[" + error_json(403, "PERMISSION_DENIED", "Not yours.") + b"]", ProviderAuthError),
    ],
)
async def test_errors_are_judged(
    way: Provider, canned: Canned, body: bytes, expected: type
) -> None:
    inner = json.loads(body)
    inner = (inner[0] if isinstance(inner, list) else inner)["error"]
    canned.status, canned.body = inner["code"], body
    with pytest.raises(ProviderError) as error:
        await way.retrieve(ID)
    assert type(error.value) is expected
    assert inner["message"] in error.value.message
    waits = RETRY in inner["details"]
    assert error.value.retry_after_seconds == (34 if waits else None)


async def test_a_page_is_asked_for_with_its_size_the_key_and_no_answers(
    way: Provider, canned: Canned
) -> None:
    canned.body = json.dumps({"operations": [RECORDED["batch"]], "nextPageToken": "t2"}).encode()
    page = await way.list_page("t1")
    assert ([one.id for one in page.batches], page.next_cursor) == ([ID], "t2")
    asked = canned.asked[-1]
    assert asked.path == "/v1beta/batches"
    assert dict(asked.query) == {
        "pageSize": "100",
        "pageToken": "t1",
        "fields": f"nextPageToken,operations({SHOWN})",
    }
    assert asked.headers["x-goog-api-key"] == KEY
    assert "authorization" not in asked.headers


@pytest.mark.parametrize(
    ("body", "following"),
    [
        (b"{}", None),
        (b'{"nextPageToken": ""}', None),
        (b'{"nextPageToken": "t2"}', "t2"),
        (b'{"operations": [], "nextPageToken": "t1"}', None),
        (b'{"operations": null}', None),
    ],
)
async def test_a_page_may_be_empty_and_have_another_after_it(
    way: Provider, canned: Canned, body: bytes, following: str | None
) -> None:
    canned.body = body
    page = await way.list_page("t1")
    assert (page.batches, page.next_cursor) == ((), following)


@pytest.mark.parametrize("body", [b'{"detail": "ok"}', b'{"error": null}', b'"batches"'])
async def test_what_is_no_list_is_no_empty_page(way: Provider, canned: Canned, body: bytes) -> None:
    canned.body = body
    with pytest.raises(ProviderUnavailable):
        await way.list_page()


async def test_a_host_that_refuses_to_choose_fields_is_asked_for_all(
    way: Provider, canned: Canned
) -> None:
    canned.status = 400
    canned.body = error_json(400, "INVALID_ARGUMENT", "Invalid field selection batchStats")
    with pytest.raises(ProviderRejected):
        await way.retrieve(ID)
    assert ["fields" in one.query for one in canned.asked] == [True, False]


async def test_a_host_that_sends_all_answers_all_the_same_is_understood(
    way: Provider, canned: Canned
) -> None:
    rows = {"inlinedResponses": {"inlinedResponses": RECORDED["results"]}}
    canned.body = batch_json(drop=("inputConfig",), output=rows, more={"response": rows})
    found = await way.retrieve(ID)
    assert found.answers == (ID,)
    lines = await read(way, ID)
    assert [line["custom_id"] for line in lines] == [row["key"] for row in RECORDED["results"]]
    assert [line["response"]["body"] for line in lines] == [
        row["response"] for row in RECORDED["results"]
    ]
    canned.body = json.dumps({"operations": [json.loads(canned.body)] * 200}).encode()
    assert len((await way.list_page()).batches) == 200


@pytest.mark.parametrize("embeds", [False, True])
async def test_answers_within_a_batch_are_read_in_the_order_of_the_requests(
    bench: Bench, embeds: bool
) -> None:
    identity = bench.sandbox.provider.add_batch(total=5, inline=True)
    jobs: dict[str, Any] = bench.sandbox.provider._jobs
    jobs[identity].embeds = embeds
    bench.sandbox.provider.finish(identity, "completed", failed=1)
    batch = await bench.provider.retrieve(identity)
    assert batch.answers == (identity,)
    assert bench.sandbox.provider.log[-1][1].endswith("output%2FresponsesFile%29")
    lines = await answers_of(bench.provider, batch)
    assert [line["custom_id"] for line in lines] == [f"request-{n}" for n in range(1, 6)]
    assert sorted(line["response"]["status_code"] for line in lines) == [200] * 4 + [400]
    (listed,) = (await bench.provider.list_page()).batches
    assert listed == batch


async def test_answers_without_keys_stand_in_their_order(way: Provider, canned: Canned) -> None:
    rows = [{"response": row["response"]} for row in RECORDED["results"]]
    canned.body = json.dumps(
        {"name": ID, "response": {"inlinedResponses": {"inlinedResponses": rows}}}, indent=2
    ).encode()
    lines = await read(way, ID)
    assert [line["custom_id"] for line in lines] == [None] * 4
    said = [line["response"]["body"]["candidates"][0] for line in lines]
    assert [one["content"]["parts"][0]["text"] for one in said] == [
        "Des Moines", "Albany", "Sacramento", "Austin",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "batches/1"}',
        b'{"name": "batches/1", "response": {"inlinedResponses": {"inlinedResponses": [{"a": 1},',
        b'{"error": {"code": 503, "message": "no", "status": "UNAVAILABLE"}}',
        b"<html>",
        b"",
    ],
)
async def test_answers_that_are_not_there_are_asked_for_again(
    way: Provider, canned: Canned, body: bytes
) -> None:
    canned.body = body
    with pytest.raises(ProviderUnavailable):
        await read(way, ID)


async def test_a_file_is_fetched_by_its_name(way: Provider, canned: Canned, tmp_path: Path) -> None:
    canned.body = b'{"key": "a", "response": {}}'
    await way.results(FILE, tmp_path / "lines", most_bytes=100)
    assert canned.asked[-1].path_qs == f"/v1beta/{FILE}:download?alt=media"
    await way.delete(FILE)
    assert (canned.asked[-1].method, canned.asked[-1].path) == ("DELETE", f"/v1beta/{FILE}")


async def test_an_input_file_is_not_given_back_and_is_done_without(bench: Bench) -> None:
    provider: Any = bench.sandbox.provider
    file = provider.keep_upload(b"{}", display_name="in", mime_type="jsonl")
    with pytest.raises(ProviderRejected):
        await read(bench.provider, file.id, is_input=True)
    await bench.provider.delete(file.id)
    with pytest.raises(ProviderNotFound):
        await read(bench.provider, file.id, is_input=True)


async def test_a_key_that_may_not_read_a_file_is_not_taken_for_a_file_that_is_gone(
    way: Provider, canned: Canned, tmp_path: Path
) -> None:
    canned.status = 403
    canned.body = error_json(403, "PERMISSION_DENIED", "The API is disabled.")
    with pytest.raises(ProviderAuthError):
        await way.results(FILE, tmp_path / "lines", most_bytes=100)
    with pytest.raises(ProviderAuthError):
        await way.delete(FILE)


async def test_a_batch_that_ended_is_refused_a_cancel_and_is_deleted(bench: Bench) -> None:
    identity = bench.sandbox.provider.add_batch(total=2, inline=True)
    bench.sandbox.provider.finish(identity, "completed")
    with pytest.raises(ProviderRejected, match="ended"):
        await bench.provider.cancel(identity)
    (reference,) = (await bench.provider.retrieve(identity)).answers
    await bench.provider.delete(reference)
    await bench.provider.delete(reference)
    with pytest.raises(ProviderNotFound):
        await bench.provider.retrieve(identity)


async def test_results_that_are_named_late_are_none_until_then(bench: Bench) -> None:
    identity = bench.sandbox.provider.add_batch(total=2)
    bench.sandbox.provider.finish(identity, "completed")
    bench.sandbox.provider.faults.add("late_file", route="retrieve")
    assert not (await bench.provider.retrieve(identity)).names_answers
    assert (await bench.provider.retrieve(identity)).names_answers


REQUEST = {"custom_id": "a", "method": "POST", "url": GENERATE, "body": {"contents": []}}


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    file = tmp_path / "part.jsonl"
    file.write_text(json.dumps(REQUEST) + "\n", encoding="utf-8")
    return file


async def test_a_file_is_sent_to_where_the_provider_says(
    way: Provider, canned: Canned, requests: Path
) -> None:
    canned.body = b'{"file": {"name": "files/abc"}}'
    canned.headers = {"x-goog-upload-url": f"{canned.base_url}/there?upload_id=1%2F2"}
    assert await way.upload(requests, name="prt_1.1.jsonl") == "files/abc"
    begun, ended = canned.asked
    size = str(len(b'{"key":"a","request":{"contents": []}}\n'))
    assert begun.path_qs == "/upload/v1beta/files"
    assert begun.headers["x-goog-upload-command"] == "start"
    assert begun.headers["x-goog-upload-header-content-length"] == size
    assert ended.path_qs == "/v1/there?upload_id=1%2F2"
    assert ended.headers["content-length"] == size
    assert ended.headers["x-goog-upload-command"] == "upload, finalize"
    assert ended.headers["x-goog-api-key"] == KEY
    assert [one.name for one in requests.parent.iterdir()] == [requests.name]


async def test_another_host_is_sent_the_file_and_not_the_key(
    way: Provider, canned: Canned, requests: Path
) -> None:
    async with served(Canned(body=b'{"file": {"name": "files/abc"}}')) as other:
        canned.headers = {"x-goog-upload-url": f"{other.base_url}/there"}
        assert await way.upload(requests, name="in") == "files/abc"
        assert KEY not in str(other.asked[0].headers)


@pytest.mark.parametrize(
    "headers", [{}, {"x-goog-upload-url": "ftp://a.example"}, {"x-goog-upload-url": "/there"}]
)
async def test_an_upload_that_leads_nowhere_is_no_upload(
    way: Provider, canned: Canned, requests: Path, headers: dict[str, str]
) -> None:
    canned.headers, canned.body = headers, b"{}"
    with pytest.raises(ProviderUnavailable):
        await way.upload(requests, name="in")


@pytest.mark.parametrize(
    ("endpoint", "verb"), [(GENERATE, "batchGenerateContent"), (EMBED, "asyncBatchEmbedContent")]
)
@pytest.mark.parametrize("model", ["gemini-3.5-flash", "models/gemini-3.5-flash"])
async def test_a_batch_is_made_of_a_file_under_the_name_of_its_tag(
    way: Provider, canned: Canned, requests: Path, endpoint: str, verb: str, model: str
) -> None:
    canned.body = batch_json(displayName="batchbell_part=prt_1.1")
    order = Order(
        requests=requests,
        file="files/abc",
        endpoint=endpoint,
        model=model,
        tag=("batchbell_part", "prt_1.1"),
        metadata={"job": "nightly"},
    )
    made = await way.submit(order)
    assert made.metadata == {"batchbell_part": "prt_1.1"}
    assert canned.asked[-1].path == f"/v1beta/models/gemini-3.5-flash:{verb}"


@pytest.mark.parametrize("name", ["nightly", "a=b", "batchbell_part=", "Batchbell_part=x"])
def test_another_name_is_only_a_name(name: str) -> None:
    assert snapshot(batch_json(displayName=name)).metadata == {"display_name": name}


async def test_a_model_that_is_not_there_is_refused_for_good(
    way: Provider, canned: Canned, requests: Path
) -> None:
    order = Order(requests=requests, file="files/abc", endpoint=GENERATE, model="gemini-0")
    canned.status = 404
    said = "models/gemini-0 is not found for API version v1beta."
    canned.body = error_json(404, "NOT_FOUND", said)
    with pytest.raises(ProviderRejected, match="gemini-0"):
        await way.submit(order)
    canned.body = b"<html>Not found</html>"
    with pytest.raises(ProviderUnavailable):
        await way.submit(order)
    canned.status = 403
    said = "You do not have permission to access the File abc or it may not exist."
    canned.body = error_json(403, "PERMISSION_DENIED", said)
    with pytest.raises(ProviderNotFound):
        await way.submit(order)


A, B = {"key": "a", "request": {}}, {"key": "b", "request": {}}


@pytest.mark.parametrize(
    ("lines", "model", "problems"),
    [
        ([A, B], "gemini-3.5-flash", []),
        ([{"request": {}}], "gemini-3.5-flash", []),
        ([A, B], None, [(None, "missing_model")]),
        ([A, B, A], "m", [(3, "duplicate_key")]),
        ([{"key": "", "request": {}}], "m", [(1, "invalid_key")]),
        ([{"key": "k" * 513, "request": {}}], "m", [(1, "invalid_key")]),
        ([{"key": 7, "request": {}}], "m", [(1, "invalid_key")]),
        ([{"key": "a"}], "m", [(1, "missing_request")]),
        ([{"key": "a", "request": []}], "m", [(1, "invalid_request")]),
        ([{"custom_id": "a", "body": {}}], "m", [(1, "unknown_field"), (1, "missing_request")]),
        ([A, {"key": "b", "request": {"model": "other"}}], "m", [(2, "mismatched_model")]),
        ([A, {"key": "b", "request": {}, "url": "/v1/x"}], "m", [(2, "unknown_field")]),
    ],
)
def test_lines_are_checked_before_they_are_sent(
    tmp_path: Path, lines: Any, model: str | None, problems: Any
) -> None:
    source = io.BytesIO("".join(json.dumps(line) + "\n" for line in lines).encode())
    form, limits = KeyedLines.form, GEMINI.limits
    found = prepare(source, tmp_path, limits=limits, form=form, model=model)
    assert [(one.line, one.code) for one in found.problems] == problems
    if not problems:
        [part] = found.parts
        ids = [json.loads(line)["custom_id"] for line in part.path.read_bytes().splitlines()]
        assert (ids[0], found.url) == (lines[0].get("key", "request-000001"), GENERATE)
