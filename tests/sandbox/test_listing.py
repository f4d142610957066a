"""Lists are newest first, in pages, and cost as much as a page is long."""

from __future__ import annotations

import openai
import pytest
from openai import AsyncOpenAI

from batchbell.sandbox import Sandbox, SandboxProvider


async def test_250_batches_are_read_in_three_pages(client: AsyncOpenAI, sandbox: Sandbox) -> None:
    ids = sandbox.provider.add_batches(250)
    assert [batch.id async for batch in client.batches.list(limit=100)] == ids[::-1]
    assert sandbox.provider.calls["list"] == 3
    assert [method for method, _ in sandbox.provider.log] == ["GET"] * 3


async def test_a_page_has_twenty_rows_and_its_cursors(
    client: AsyncOpenAI, sandbox: Sandbox
) -> None:
    ids = sandbox.provider.add_batches(21)
    page = await client.batches.list()
    assert [batch.id for batch in page.data] == ids[:0:-1]
    assert page.has_more
    last = await client.batches.list(after=page.data[-1].id)
    assert [batch.id for batch in last.data] == ids[:1]
    assert not last.has_more


async def test_an_exactly_full_page_is_the_last(client: AsyncOpenAI, sandbox: Sandbox) -> None:
    sandbox.provider.add_batches(20)
    assert not (await client.batches.list()).has_more


async def test_a_limit_of_zero_is_an_empty_page(client: AsyncOpenAI, sandbox: Sandbox) -> None:
    sandbox.provider.add_batch()
    assert (await client.batches.list(limit=0)).data == []


@pytest.mark.parametrize(
    ("limit", "code"), [(101, "integer_above_max_value"), (-1, "integer_below_min_value")]
)
async def test_a_limit_out_of_range_is_refused(client: AsyncOpenAI, limit: int, code: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.batches.list(limit=limit)
    assert (caught.value.code, caught.value.param) == (code, "limit")


async def test_an_unknown_cursor_is_refused(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.batches.list(after="batch_none")
    assert caught.value.param == "after"


async def test_a_forgotten_batch_is_gone_but_still_a_cursor(
    client: AsyncOpenAI, sandbox: Sandbox
) -> None:
    oldest, middle, newest = sandbox.provider.add_batches(3)
    sandbox.provider.forget(middle)
    assert [batch.id async for batch in client.batches.list()] == [newest, oldest]
    assert [batch.id async for batch in client.batches.list(after=middle)] == [oldest]
    with pytest.raises(openai.NotFoundError):
        await client.batches.retrieve(middle)


def test_a_page_looks_at_no_more_batches_than_it_shows() -> None:
    looked = 0

    def clock() -> float:
        nonlocal looked
        looked += 1
        return 1_700_000_000.0

    provider = SandboxProvider(clock=clock)
    ids = provider.add_batches(10_000, created_at=1_700_000_000.0)
    rows, has_more = provider.page(after=ids[5_000], limit=100)
    assert [row["id"] for row in rows] == ids[4_999:4_899:-1]
    assert has_more
    assert looked == 100


def test_a_seed_makes_ids_repeatable() -> None:
    first, second = SandboxProvider(seed=7), SandboxProvider(seed=7)
    assert first.add_batches(3) == second.add_batches(3)
    assert SandboxProvider().add_batch() != SandboxProvider().add_batch()
