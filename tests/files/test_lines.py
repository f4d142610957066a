"""What single lines say, however they are written."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchbell.files.lines import Fate, answer, custom_id, whole_lines

from .making import strange_lines

DEEP = b"[" * 100_000 + b"]" * 100_000


@given(strange_lines())
def test_no_line_with_a_custom_id_is_too_strange_to_be_understood(line: bytes) -> None:
    found = answer(line)
    assert found is not None
    assert found.custom_id == custom_id(line)


@pytest.mark.parametrize(
    "line",
    [
        b'{"custom_id": "a", "response": {"status_code": 200, "body": %s}}' % DEEP,
        b'{"custom_id": "a", "response": {"status_code": 200, "body": {"usage": %s}}}' % DEEP,
        b'{"custom_id": "a", "metadata": %s}' % DEEP,
    ],
)
def test_a_line_that_nests_too_deeply_is_not_understood(line: bytes) -> None:
    assert answer(line) is None
    assert custom_id(line) in (None, "a")


@pytest.mark.parametrize("code", [[], {}, 5, True, None])
def test_an_error_whose_code_is_no_word_is_a_failure(code: object) -> None:
    line = json.dumps({"custom_id": "a", "response": None, "error": {"code": code}}).encode()
    found = answer(line)
    assert found is not None
    assert found.fate is Fate.FAILED


def test_what_was_spent_is_counted_also_where_an_answer_has_half_an_emoji() -> None:
    body = {"model": "m", "usage": {"prompt_tokens": 3}, "choices": [{"text": "cut \ud83d"}]}
    line = {"custom_id": "\ud83d", "response": {"status_code": 200, "body": body}, "error": None}
    found = answer(json.dumps(line).encode())
    assert found is not None
    assert found.custom_id == "\ud83d"
    assert found.spent is not None
    assert (found.spent.model, found.spent.input_tokens) == ("m", 3)


@given(st.lists(st.binary(max_size=8)))
async def test_lines_are_whole_however_they_arrive(chunks: list[bytes]) -> None:
    async def arriving() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    lines = [line async for some in whole_lines(arriving()) for line in some]
    expected = b"".join(chunks).split(b"\n")
    assert lines == (expected if expected[-1] else expected[:-1])


BODY = {"model": "m", "usage": {"prompt_tokens": 5, "completion_tokens": 3}, "choices": []}


def line_of(response: object, error: object = None) -> bytes:
    return json.dumps({"custom_id": "a", "response": response, "error": error}).encode()


EMPTY = [{}, "", [], False, 0, "null", {"code": None, "message": None}, {"code": "", "data": {}}]
STATUSES = ["200", 200.0, "200 OK", "HTTP/1.1 201"]
USAGES: list[dict[str, object]] = [
    {"prompt_tokens": "5", "completion_tokens": 3.0, "total_tokens": None},
    {"input_tokens": 5, "prompt_tokens": None, "output_tokens": 3, "prompt_tokens_details": []},
]


@pytest.mark.parametrize(
    "line",
    [
        *(line_of({"status_code": 200, "body": BODY}, empty) for empty in EMPTY),
        *(line_of({"status_code": status, "body": BODY}) for status in STATUSES),
        *(line_of({"status_code": 200, "body": {**BODY, "usage": usage}}) for usage in USAGES),
        line_of({"status_code": 200, "body": json.dumps(BODY)}),
        line_of(json.dumps({"status_code": 200, "body": BODY})),
        line_of({"body": BODY}),
        line_of(BODY),
    ],
)
def test_a_good_answer_is_one_however_it_is_written(line: bytes) -> None:
    found = answer(line)
    assert found is not None
    assert found.fate is Fate.SUCCEEDED
    assert found.spent is not None
    assert (found.spent.model, found.spent.input_tokens, found.spent.output_tokens) == ("m", 5, 3)


@pytest.mark.parametrize(
    "line",
    [
        line_of({"status_code": "400", "body": BODY}),
        line_of({"status_code": 200, "body": BODY}, {"code": "x"}),
        line_of({"status_code": 200, "body": BODY}, "no"),
        line_of({"status_code": True, "body": {"error": {"message": "no"}}}),
        line_of({"body": {"error": {"message": "no"}}}),
        line_of({"status_code": 0, "body": BODY}),
        *(line_of(empty, empty) for empty in EMPTY),
        b'{"custom_id":"a"}',
    ],
)
def test_a_failed_answer_is_one_however_it_is_written(line: bytes) -> None:
    found = answer(line)
    assert found is not None
    assert found.fate is Fate.FAILED


@pytest.mark.parametrize(
    ("written", "name"),
    [('"a"', "a"), ("7", "7"), ("7.0", "7"), ("null", None), ("true", None), ("[1]", None)],
)
def test_whose_line_it_is(written: str, name: str | None) -> None:
    line = f'{{"custom_id":{written},"response":null}}'.encode()
    found = answer(line)
    assert found is not None
    assert (found.custom_id, custom_id(line)) == (name, name)
    assert found.is_text is (written == '"a"')
