"""Creating a batch succeeds; what is wrong with its file shows later, with the line."""

from __future__ import annotations

import pytest
from openai import AsyncOpenAI

from .making import FakeClock, new_batch, request_line

GOOD = request_line("first")

CASES = {
    "not JSON": (f"{GOOD}\n{{oops", "invalid_json_line", None, 2),
    "not an object": (f"{GOOD}\n[1]", "invalid_json_line", None, 2),
    "not UTF-8": (GOOD.encode() + b'\n{"custom_id":"\xff"}', "invalid_json_line", None, 2),
    "an id used twice": (f"{GOOD}\n{GOOD}", "duplicate_custom_id", "custom_id", 2),
    "another url": (request_line("a", url="/v1/embeddings"), "invalid_url", "url", 1),
    "another method": (request_line("a", method="GET"), "invalid_method", "method", 1),
    "two models": (
        f"{GOOD}\n\n" + request_line("b", body={"model": "other"}),
        "mismatched_model",
        "body.model",
        3,
    ),
    "no model": (request_line("a", body={"input": ""}), "missing_required_parameter", None, 1),
    "no custom_id": (
        request_line("a", custom_id=None),
        "missing_required_parameter",
        "custom_id",
        1,
    ),
    "no body": (request_line("a", body=None), "missing_required_parameter", "body", 1),
    "a body of the wrong type": (request_line("a", body="text"), "invalid_request", None, 1),
    "nothing at all": ("", "empty_file", None, None),
    "only empty lines": ("\n\n  \n", "empty_file", None, None),
}


@pytest.mark.parametrize(
    ("content", "code", "param", "line"), list(CASES.values()), ids=list(CASES)
)
async def test_a_bad_file_fails_the_batch_and_names_the_line(
    client: AsyncOpenAI,
    clock: FakeClock,
    content: str | bytes,
    code: str,
    param: str | None,
    line: int | None,
) -> None:
    raw = content if isinstance(content, bytes) else content.encode()
    batch = await new_batch(client, raw)
    assert (batch.status, batch.errors) == ("validating", None)
    clock.advance(10)
    batch = await client.batches.retrieve(batch.id)
    assert (batch.status, batch.failed_at) == ("failed", int(clock.now))
    assert batch.request_counts.total == 0
    assert batch.output_file_id is None
    assert batch.error_file_id is None
    [problem] = batch.errors.data
    assert (problem.code, problem.line) == (code, line)
    assert param in (None, problem.param)
    assert problem.message


async def test_every_bad_line_is_told(client: AsyncOpenAI, clock: FakeClock) -> None:
    batch = await new_batch(client, f"{{\n{GOOD}\n{GOOD}\n".encode())
    clock.advance(10)
    batch = await client.batches.retrieve(batch.id)
    assert [(p.code, p.line) for p in batch.errors.data] == [
        ("invalid_json_line", 1),
        ("duplicate_custom_id", 3),
    ]


async def test_too_many_requests_are_refused(client: AsyncOpenAI, clock: FakeClock) -> None:
    batch = await new_batch(client, b"{}\n" * 50_001)
    clock.advance(10)
    batch = await client.batches.retrieve(batch.id)
    assert [p.code for p in batch.errors.data] == ["too_many_tasks"]


async def test_a_batch_may_fail_for_want_of_quota(client: AsyncOpenAI, clock: FakeClock) -> None:
    batch = await new_batch(client, GOOD.encode(), metadata={"sandbox_ends": "failed"})
    clock.advance(10)
    batch = await client.batches.retrieve(batch.id)
    assert [p.code for p in batch.errors.data] == ["token_limit_exceeded"]
