"""What is made of an OpenAI-shaped batch, however its host writes it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.core.errors import MalformedBatch, ProviderUnavailable
from batchbell.core.model import BatchProblem, Counts, Snapshot, Status
from batchbell.providers import Page, openai
from batchbell.providers.lists import ROWS_MAX
from batchbell.providers.openai import snapshot_from
from batchbell.providers.profiles import OPENAI
from batchbell.providers.values import epoch_seconds
from tests.providers.canned import BATCH, batch_json, list_json


def page_from(body: bytes, cursor: str | None) -> Page:
    return openai.page_from(body, cursor, OPENAI)


def seen(**changes: Any) -> Snapshot:
    return snapshot_from(batch_json(**changes))


def test_a_whole_batch_is_read_whole() -> None:
    assert seen() == Snapshot(
        id="batch_1",
        provider_status="completed",
        status=Status.COMPLETED,
        counts=Counts(total=3, completed=2, failed=1),
        endpoint="/v1/chat/completions",
        model="gpt-5-mini",
        completion_window="24h",
        input_file_id="file-in",
        output_file_id="file-out",
        error_file_id=None,
        timestamps={"created_at": 1_700_000_000, "completed_at": 1_700_000_100},
        usage={"input_tokens": 5, "output_tokens": 7, "total_tokens": 12},
        metadata={"job": "nightly"},
    )


def test_an_id_and_a_status_are_enough() -> None:
    assert snapshot_from(b'{"id":"b","status":"validating"}') == Snapshot(
        id="b", provider_status="validating", status=Status.VALIDATING
    )


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("validating", Status.VALIDATING),
        ("in_progress", Status.IN_PROGRESS),
        ("finalizing", Status.FINALIZING),
        ("cancelling", Status.CANCELLING),
        ("Completed", Status.COMPLETED),
        ("FAILED", Status.FAILED),
        ("Expired", Status.EXPIRED),
        ("cancelled", Status.CANCELLED),
        ("canceled", Status.CANCELLED),
        ("created", Status.VALIDATING),
        ("scheduling", Status.VALIDATING),
        ("paused", None),
        ("lost", None),
        ("LOST", None),
    ],
)
def test_status_words_are_read_whatever_their_case(word: str, status: Status | None) -> None:
    batch = seen(status=word)
    assert (batch.status, batch.provider_status) == (status, word)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1_700_000_000, 1_700_000_000),
        (1_700_000_000.75, 1_700_000_000),
        ("1700000000", 1_700_000_000),
        ("1700000000.5", 1_700_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000),
        ("2023-11-14T22:13:20.123456Z", 1_700_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000),
        ("2023-11-14T22:13:20", 1_700_000_000),
        ("2023-11-14", 1_699_920_000),
        (0, None),
        (-5, None),
        (10**30, None),
        (1_700_000_000_000, 1_700_000_000),
        (1_700_000_000_123_456_789, 1_700_000_000),
        ("1700000000123", 1_700_000_000),
        (1.7e12, 1_700_000_000),
        (10**20, None),
        (1e300, None),
        (float("nan"), None),
        (float("inf"), None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("9" * 5000, None),
        (True, None),
        (None, None),
        ([1], None),
        ({}, None),
    ],
)
def test_times_are_read_in_every_form(value: Any, seconds: int | None) -> None:
    assert epoch_seconds(value) == seconds


def part(total: int, completed: int, failed: int) -> Counts:
    return Counts(total=total, completed=completed, failed=failed, whole=False)


@pytest.mark.parametrize(
    ("value", "counts"),
    [
        ({"total": 3, "completed": 2, "failed": 1}, Counts(total=3, completed=2, failed=1)),
        ({"total": "3", "completed": "2", "failed": "0"}, Counts(total=3, completed=2, failed=0)),
        ({"total": 3, "succeeded": 3, "failed": 0}, Counts(total=3, completed=3, failed=0)),
        ({"total": 3, "completed": 3}, Counts(total=3, completed=3, failed=0)),
        (
            {"processing": 0, "succeeded": 5, "errored": 3, "canceled": 1, "expired": 1},
            Counts(total=10, completed=5, failed=3),
        ),
        ({"total": 0, "completed": 0, "failed": 0}, Counts(total=0, completed=0, failed=0)),
        ({"total": 3, "completed": None, "failed": None}, part(3, 0, 0)),
        ({"total": 3, "completed": None}, part(3, 0, 0)),
        ({"total": 3}, part(3, 0, 0)),
        ({"total": 3.0, "completed": 2.0}, part(3, 2, 0)),
        ({"total": 3, "completed": 3, "failed": 1}, part(3, 3, 1)),
        ({"completed": 3}, part(3, 3, 0)),
        ({"total": "many", "completed": 2, "failed": 1}, part(3, 2, 1)),
        ({"total": -1, "completed": 0, "failed": 0}, part(0, 0, 0)),
        ({"total": None, "completed": None, "failed": None}, None),
        ({"total": True}, None),
        ({"total": "many"}, None),
        ({}, None),
        (None, None),
        ([], None),
        ("3", None),
    ],
)
def test_counts_are_read_in_every_form(value: Any, counts: Counts | None) -> None:
    assert seen(request_counts=value).counts == counts


@pytest.mark.parametrize("nothing", [None, "", 0, [], {}, False])
def test_what_is_no_file_id_is_none(nothing: Any) -> None:
    batch = seen(output_file_id=nothing, error_file_id=nothing)
    assert (batch.output_file_id, batch.error_file_id) == (None, None)


def test_metadata_becomes_text() -> None:
    batch = seen(metadata={"a": "x", "b": 3, "c": True, "d": None, "e": {"f": [1]}})
    assert batch.metadata == {"a": "x", "b": "3", "c": "true", "e": '{"f":[1]}'}


@pytest.mark.parametrize("value", [None, [], "text", 7])
def test_what_is_no_metadata_is_none(value: Any) -> None:
    assert seen(metadata=value).metadata is None


def test_problems_are_read_from_a_list_object_a_list_and_a_lone_error() -> None:
    entry = {"code": "invalid_json_line", "message": "Bad.", "param": None, "line": "3"}
    problem = BatchProblem(code="invalid_json_line", message="Bad.", line=3)
    assert seen(errors={"object": "list", "data": [entry]}).problems == (problem,)
    assert seen(errors=[entry]).problems == (problem,)
    assert seen(error={"message": "No credit."}).problems == (
        BatchProblem(code=None, message="No credit."),
    )
    assert seen(error="It broke.").problems == (BatchProblem(code=None, message="It broke."),)
    assert seen(errors={"data": None}, error=None).problems == ()
    assert seen(errors={"object": "list", "data": []}).problems == ()


def test_problems_are_bounded() -> None:
    entry = {"code": "x", "message": "m" * 10_000, "line": 1}
    problems = seen(errors={"data": [entry] * 5_000}).problems
    assert len(problems) == 100
    assert len(str(problems[0].message)) == 2_000


@pytest.mark.parametrize(
    "changes",
    [{"id": None}, {"id": ""}, {"id": 7}, {"status": None}, {"status": ""}, {"status": 5}],
)
def test_a_batch_without_id_or_status_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedBatch):
        seen(**changes)


def test_half_an_emoji_in_one_row_spoils_nothing() -> None:
    body = b'{"object":"list","has_more":false,"data":[%s,%s]}' % (
        b'{"id":"a","status":"completed","metadata":{"note":"cut \\ud83d"}}',
        batch_json(),
    )
    page = page_from(body, None)
    assert [batch.id for batch in page.batches] == ["a", "batch_1"]
    assert page.malformed == ()
    json.dumps(page.batches[0].metadata).encode("utf-8")


def test_a_byte_that_is_no_utf8_spoils_nothing() -> None:
    page = page_from(list_json(BATCH).replace(b"nightly", b"night\xff"), None)
    assert page.batches[0].metadata == {"job": "night\ufffd"}


def test_rows_that_are_no_batches_are_reported_with_their_id_where_there_is_one() -> None:
    rows = [None, 7, "text", [], {}, {"id": "b"}, {"id": "c", "status": 1}, BATCH]
    page = page_from(list_json(*rows), None)
    assert [batch.id for batch in page.batches] == ["batch_1"]
    assert [row.id for row in page.malformed] == [None, None, None, None, None, "b", "c"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"7",
        b'"text"',
        b"{}",
        b'{"data":{}}',
        b'{"error":{"message":"no"}}',
        b"<html>Bad gateway</html>",
        list_json(BATCH)[:-20],
        list_json(BATCH) + b"x",
        b'{"data":[' + b"[" * 100_000,
        b'{"data":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
    ],
)
def test_what_is_no_list_is_no_answer(body: bytes) -> None:
    with pytest.raises(ProviderUnavailable):
        page_from(body, None)


@pytest.mark.parametrize(
    ("changes", "cursor", "following"),
    [
        ({"has_more": True, "last_id": "batch_1"}, None, "batch_1"),
        ({"has_more": True, "last_id": "other"}, None, "other"),
        ({"has_more": True, "last_id": None}, None, "batch_1"),
        ({"has_more": True, "last_id": ""}, "x", "batch_1"),
        ({"has_more": True, "last_id": "batch_1"}, "batch_1", None),
        ({"has_more": False, "last_id": "batch_1"}, None, None),
        ({"has_more": None, "last_id": "batch_1"}, None, None),
        ({"has_more": "false", "last_id": "batch_1"}, None, None),
        ({"has_more": True, "last_id": "batch_1", "data": []}, None, None),
    ],
)
def test_the_next_cursor_is_there_only_while_there_is_more(
    changes: dict[str, Any], cursor: str | None, following: str | None
) -> None:
    assert page_from(list_json(BATCH, **changes), cursor).next_cursor == following


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(BATCH)), JSON))
def test_no_field_of_a_row_breaks_the_page(changes: dict[str, Any]) -> None:
    page = page_from(list_json({**BATCH, **changes}, {**BATCH, "id": "good"}), None)
    assert page.batches[-1].id == "good"
    assert len(page.batches) + len(page.malformed) == 2
    for batch in page.batches:
        assert batch.fingerprint


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reading(noise: bytes) -> None:
    for body in (noise, list_json(BATCH)[:-50] + noise, noise + list_json(BATCH)):
        try:
            page_from(body, None)
        except ProviderUnavailable:
            continue


# Lists that are no lists


def many(row: bytes, number: int) -> bytes:
    return b'{"object":"list","data":[' + b",".join([row] * number) + b'],"has_more":true}'


GOOD = json.dumps({**BATCH, "padding": "x" * 300}).encode()


@pytest.mark.parametrize("row", [b"0", b"{}", b"[]", b'""', b"null", b'{"id":"a"}', GOOD])
def test_rows_beyond_any_page_are_not_read(row: bytes) -> None:
    """A list of two megabytes of zeros stood still for 27 s."""
    for number in (ROWS_MAX + 1, 2_000_000 // len(row)):
        page = page_from(many(row, max(number, ROWS_MAX + 1)), None)
        assert len(page.batches) + len(page.malformed) == ROWS_MAX
        assert "more than" in (page.fault or "")


def test_a_long_page_is_read_as_a_short_one() -> None:
    rows = [{**BATCH, "id": f"batch_{n}", "padding": "\u00e4" * 3_000} for n in range(120)]
    long = page_from(list_json(*rows, has_more=True), None)
    short = page_from(list_json(*({**row, "padding": ""} for row in rows), has_more=True), None)
    assert replace(long, hashes=()) == replace(short, hashes=())
    assert (len(long.batches), long.next_cursor, long.fault) == (120, "batch_119", None)
    spoiled = page_from(list_json(*rows, 7, {"id": "x"}), None)
    assert [row.id for row in spoiled.malformed] == [None, "x"]
    assert page_from(list_json(*rows), None).hashes == long.hashes
    assert len(set(long.hashes)) == 120


@pytest.mark.parametrize("size", [1, 300_000])
def test_lists_of_other_shapes_are_read(size: int) -> None:
    padding = " " * size
    assert page_from(f'{{"data":null,"has_more":false}}{padding}'.encode(), None).batches == ()
    assert [b.id for b in page_from(f"[{json.dumps(BATCH)}]{padding}".encode(), None).batches] == [
        "batch_1"
    ]
    assert page_from(f"{padding}[]".encode(), None).batches == ()
    for text in ("{}", '{"data":7}', '{"data":[', '{"data" 7}', '{"data":{}}', "7", '"x"', "[" * 9):
        with pytest.raises(ProviderUnavailable):
            page_from(f"{padding}{text}".encode(), None)
    with pytest.raises(ProviderUnavailable):
        page_from(b"[" * (100_000 + size), None)


def test_what_is_longer_than_anything_that_is_kept_is_left_out() -> None:
    found = seen(
        metadata={f"k{n}": "v" * 9_000 for n in range(500)},
        usage={"x": "y" * 50_000},
        model="m" * 9_000,
        status="s" * 9_000,
    )
    assert found.metadata is not None
    assert (len(found.metadata), len(found.metadata["k0"])) == (100, 2_000)
    assert (found.usage, found.model, len(found.provider_status)) == (None, None, 200)
