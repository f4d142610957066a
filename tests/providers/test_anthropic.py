"""What is Anthropic's own, beside what every dialect promises.

`recorded_anthropic.json` holds a batch and its results as the API gave them in August 2026. They
come from the test data of ellmer (MIT, Copyright (c) ellmer authors); the `custom_id` of each line
was added here.
"""

from __future__ import annotations

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
from batchbell.core.model import BatchOutcome, Counts, Status, outcome_of
from batchbell.files.lines import Fate, Spent, answer
from batchbell.providers import Provider
from batchbell.providers.anthropic import MessageLines, snapshot_from, status_of
from tests.providers import benches
from tests.providers.benches import KEY, Bench, connected
from tests.providers.canned import Canned, served

RECORDED = json.loads(
    (Path(__file__).parent / "recorded_anthropic.json").read_text(encoding="utf-8")
)
ID = RECORDED["batch"]["id"]
NAMES = ("succeeded", "errored", "canceled", "expired")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with benches.anthropic() as bench:
        yield bench


@pytest.fixture
async def way(canned: Canned) -> AsyncIterator[Provider]:
    async for provider in connected("anthropic", canned.base_url.removesuffix("/v1")):
        yield provider


def batch_json(**changes: Any) -> bytes:
    return json.dumps({**RECORDED["batch"], **changes}).encode()


def test_a_recorded_batch_is_read() -> None:
    found = snapshot_from(batch_json())
    assert (found.id, found.status, found.provider_status) == (ID, Status.COMPLETED, "ended")
    assert found.counts == Counts(total=4, completed=4, failed=0)
    assert found.timestamps == {
        "created_at": 1785692828,
        "expires_at": 1785692828 + 86_400,
        "completed_at": 1785692884,
    }
    assert found.answers == (RECORDED["batch"]["results_url"],)


def test_recorded_results_keep_their_bodies_and_say_what_they_used() -> None:
    texts = []
    for line in RECORDED["results"]:
        read = MessageLines().answer(json.dumps(line).encode())
        shown = json.loads(read)
        assert shown["custom_id"] == line["custom_id"]
        assert (shown["response"]["status_code"], shown["error"]) == (200, None)
        assert shown["response"]["body"] == line["result"]["message"]
        texts.append(shown["response"]["body"]["content"][0]["text"])
        found, used = answer(read), line["result"]["message"]["usage"]
        assert found is not None
        assert found.fate is Fate.SUCCEEDED
        assert found.spent == Spent(
            "claude-sonnet-5", used["input_tokens"], 0, used["output_tokens"], 0
        )
    assert texts == ["Des Moines", "Albany", "Sacramento", "Austin"]


def test_tokens_of_the_cache_are_among_those_of_the_input() -> None:
    usage = {
        "input_tokens": 10,
        "cache_creation_input_tokens": 200,
        "cache_read_input_tokens": 3000,
        "output_tokens": 7,
        "output_tokens_details": {"thinking_tokens": 4},
    }
    for odd in ({}, {"output_tokens": "7"}):  # the second is read by the tolerant way
        message = {"model": "m", "usage": {**usage, **odd}}
        line = {"custom_id": "a", "result": {"type": "succeeded", "message": message}}
        found = answer(MessageLines().answer(json.dumps(line).encode()))
        assert found is not None
        assert found.spent == Spent("m", 3210, 3000, 7, 4)


@pytest.mark.parametrize(
    ("counts", "cancelled", "status", "outcome"),
    [
        ((4, 0, 0, 0), False, Status.COMPLETED, BatchOutcome.SUCCEEDED),
        ((3, 1, 0, 0), False, Status.COMPLETED, BatchOutcome.PARTIAL),
        ((4, 0, 0, 0), True, Status.COMPLETED, BatchOutcome.SUCCEEDED),  # the cancel was late
        ((0, 4, 0, 0), False, Status.FAILED, BatchOutcome.NONE),
        ((0, 0, 0, 4), False, Status.EXPIRED, BatchOutcome.NONE),
        ((3, 0, 0, 1), False, Status.EXPIRED, BatchOutcome.PARTIAL),
        ((0, 1, 0, 3), False, Status.EXPIRED, BatchOutcome.NONE),
        ((0, 0, 4, 0), True, Status.CANCELLED, BatchOutcome.NONE),
        ((2, 0, 2, 0), True, Status.CANCELLED, BatchOutcome.PARTIAL),
        ((1, 0, 2, 1), True, Status.CANCELLED, BatchOutcome.PARTIAL),
        ((1, 0, 2, 1), False, Status.EXPIRED, BatchOutcome.PARTIAL),
    ],
)
def test_how_a_batch_ended_its_counts_say(
    counts: tuple[int, ...], cancelled: bool, status: Status, outcome: BatchOutcome
) -> None:
    numbers = dict(zip(NAMES, counts, strict=True)) | {"processing": 0}
    at = "2026-08-02T17:47:30Z" if cancelled else None
    found = snapshot_from(batch_json(request_counts=numbers, cancel_initiated_at=at))
    assert found.status is status
    assert outcome_of(found.counts, status) is outcome
    assert f"{status}_at" in found.timestamps


@pytest.mark.parametrize("counts", [None, {}, [], {"succeeded": None}, "four"])
def test_an_end_without_counts_is_an_end_whose_yield_is_not_known(counts: Any) -> None:
    found = snapshot_from(batch_json(request_counts=counts))
    assert (found.status, found.counts) == (Status.COMPLETED, None)
    assert outcome_of(found.counts, Status.COMPLETED) is None


def test_a_word_that_is_new_is_none() -> None:
    assert status_of("paused", {"succeeded": 4}, was_cancelled=False) is None
    assert status_of("CANCELING", {}, was_cancelled=True) is Status.CANCELLING


ERROR = {"type": "invalid_request_error", "message": "messages: at least one"}


@pytest.mark.parametrize(
    ("result", "fate", "status", "code", "passing"),
    [
        (
            {"type": "errored", "error": {"type": "error", "error": ERROR}},
            "failed",
            400,
            None,
            False,
        ),
        ({"type": "errored", "error": ERROR}, "failed", 400, None, False),
        ({"type": "errored", "error": {"type": "overloaded_error"}}, "failed", 529, None, True),
        ({"type": "errored", "error": {"type": "new_error"}}, "failed", 500, None, True),
        ({"type": "errored", "error": None}, "failed", 500, None, True),
        ({"type": "canceled"}, "not_run", None, "batch_cancelled", True),
        ({"type": "expired"}, "not_run", None, "batch_expired", True),
    ],
)
def test_what_has_no_answer_says_why(
    result: Any, fate: str, status: int | None, code: str | None, passing: bool
) -> None:
    read = MessageLines().answer(json.dumps({"custom_id": "a", "result": result}).encode())
    shown, found = json.loads(read), answer(read)
    assert found is not None
    assert (found.custom_id, found.fate, found.passing) == ("a", fate, passing)
    if status is None:
        assert (shown["response"], shown["error"]["code"]) == (None, code)
    else:
        assert (shown["response"]["status_code"], shown["error"]) == (status, None)
        assert shown["response"]["body"] == result["error"]


@pytest.mark.parametrize(
    "line",
    [
        b"null",
        b"{}",
        b'{"custom_id": "a"}',
        b'{"custom_id": "a", "result": {"type": "succeeded"}}',
        b'{"custom_id": "a", "result": {"type": "paused"}}',
        b'{"custom_id": "a", "result": "x"}',
        b'{"type": "error", "error": {"type": "api_error", "message": "no"}}',
        b'{"custom_id": "a", "result": {"type": "succ',
    ],
)
def test_a_line_that_is_not_understood_stays_as_it_is(line: bytes) -> None:
    assert MessageLines().answer(line) == line


def error_json(type_: str, message: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": type_, "message": message}}).encode()


@pytest.mark.parametrize(
    ("status", "type_", "message", "expected"),
    [
        (404, "not_found_error", f"Could not find message batch with id {ID}.", ProviderNotFound),
        (404, "not_found_error", "Message batch not found.", ProviderNotFound),
        (404, "not_found_error", "Not Found", ProviderUnavailable),  # maybe about the address
        (401, "authentication_error", "invalid x-api-key", ProviderAuthError),
        (403, "permission_error", "Your API key may not do this.", ProviderAuthError),
        (402, "billing_error", "Look at your plan.", ProviderBillingError),
        (400, "invalid_request_error", "Your credit balance is too low", ProviderBillingError),
        (400, "invalid_request_error", "limit: too high", ProviderRejected),
        (413, "request_too_large", "Too large.", ProviderRejected),
        (429, "rate_limit_error", "Slower, please.", ProviderRateLimited),
        (500, "api_error", "Internal server error", ProviderUnavailable),
        (529, "overloaded_error", "Overloaded", ProviderUnavailable),
        (200, "overloaded_error", "Overloaded", ProviderUnavailable),
    ],
)
async def test_errors_are_judged(
    way: Provider, canned: Canned, status: int, type_: str, message: str, expected: type
) -> None:
    canned.status, canned.headers = status, {"retry-after": "12"}
    canned.body = error_json(type_, message)
    with pytest.raises(ProviderError) as error:
        await way.retrieve(ID)
    assert type(error.value) is expected
    assert message in error.value.message
    assert error.value.retry_after_seconds == (None if status == 200 else 12)


async def test_calls_carry_the_key_and_the_version(way: Provider, canned: Canned) -> None:
    canned.body = json.dumps(
        {"data": [RECORDED["batch"]], "has_more": True, "first_id": ID, "last_id": "msgbatch_2"}
    ).encode()
    page = await way.list_page("msgbatch_0")
    assert ([one.id for one in page.batches], page.next_cursor) == ([ID], "msgbatch_2")
    asked = canned.asked[-1]
    assert (asked.path, dict(asked.query)) == (
        "/v1/messages/batches",
        {"limit": "1000", "after_id": "msgbatch_0"},
    )
    assert (asked.headers["x-api-key"], asked.headers["anthropic-version"]) == (KEY, "2023-06-01")
    assert "authorization" not in asked.headers


async def test_results_with_the_apis_own_path_are_asked_for_at_our_base_url(
    way: Provider, canned: Canned, tmp_path: Path
) -> None:
    """A gateway passes on the address of the API behind it."""
    (reference,) = snapshot_from(batch_json()).answers
    assert reference.startswith("https://api.anthropic.com/")
    canned.body = b"{}"
    await way.results(reference, tmp_path / "lines", most_bytes=100)
    assert canned.asked[-1].path == f"/v1/messages/batches/{ID}/results"
    assert canned.asked[-1].headers["x-api-key"] == KEY


async def test_results_at_another_host_are_fetched_without_our_key(
    way: Provider, canned: Canned, tmp_path: Path
) -> None:
    async with served(Canned(body=b"{}")) as storage:
        url = f"{storage.base_url}/kept/7?signature=a%2Fb"
        (reference,) = snapshot_from(batch_json(results_url=url)).answers
        await way.results(reference, tmp_path / "lines", most_bytes=100)
        (asked,) = storage.asked
        assert asked.path_qs == "/v1/kept/7?signature=a%2Fb"
        assert "x-api-key" not in asked.headers
    assert canned.asked == []
    await way.delete(reference)
    assert (canned.asked[-1].method, canned.asked[-1].path) == (
        "DELETE",
        f"/v1/messages/batches/{ID}",
    )


async def test_a_batch_that_ended_is_refused_a_cancel_and_is_deleted(bench: Bench) -> None:
    identity = bench.sandbox.provider.add_batch(total=2)
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


async def test_results_that_are_archived_are_said_to_be_gone(bench: Bench, tmp_path: Path) -> None:
    made_at = benches.NOW - 30 * 86_400
    identity = bench.sandbox.provider.add_batch(total=2, created_at=made_at)
    bench.sandbox.provider.finish(identity, "completed")
    batch = await bench.provider.retrieve(identity)
    assert (batch.status, batch.counts) == (
        Status.COMPLETED,
        Counts(total=2, completed=2, failed=0),
    )
    (reference,) = batch.answers
    with pytest.raises(ProviderNotFound, match="no available results"):
        await bench.provider.results(reference, tmp_path / "lines", most_bytes=100)


async def test_a_row_without_an_id_is_malformed(way: Provider, canned: Canned) -> None:
    canned.body = batch_json(id="")
    with pytest.raises(MalformedBatch):
        await way.retrieve(ID)
