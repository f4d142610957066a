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
