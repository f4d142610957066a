"""What submissions leave at a provider is forgotten when it is asked to, and not before its use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.workers.conftest import House
from tests.workers.submitting import Counter, counting, states

from batchbell.core.submission import Expiry
from batchbell.sandbox import problem

HOUR_SECONDS = 3600
NO_ROOM = problem("token_limit_exceeded", "Limit: 150 enqueued tokens.")


@pytest.fixture
async def counter(house: House, tmp_path: Path) -> AsyncIterator[Counter]:
    """Inputs are to be forgotten after two hours, outputs after three."""
    expiry = Expiry(input_seconds=2 * HOUR_SECONDS, output_seconds=3 * HOUR_SECONDS)
    async with counting(house, tmp_path, expiry=expiry) as counter:
        yield counter


def lifetimes(counter: Counter) -> list[tuple[str, int]]:
    page = counter.house.provider.file_page(purpose=None, after=None, limit=100, newest_first=False)
    return [(one["purpose"], one["expires_at"] - one["created_at"]) for one in page["data"]]


async def test_uploads_and_outputs_have_their_time(counter: Counter) -> None:
    """Pitfall 21: offer expiry."""
    id = await counter.submit(4)
    await counter.step()
    await counter.end(await counter.running(id))
    assert lifetimes(counter) == [
        ("batch", 2 * HOUR_SECONDS),
        ("batch_output", 3 * HOUR_SECONDS),
    ]


@pytest.mark.parametrize(("hours", "uploads"), [(0, 2), (1.5, 3)])
async def test_a_part_that_waited_for_room_is_uploaded_again_before_its_file_is_gone(
    counter: Counter, hours: float, uploads: int
) -> None:
    id = await counter.submit(8)
    await counter.step()
    first, second = await counter.running(id)
    await counter.end([second], "failed", problems=[NO_ROOM])
    assert states((await counter.of(id)).parts) == ["running", "waiting"]
    counter.house.clock.advance(hours * HOUR_SECONDS)
    await counter.end([first])
    [again] = await counter.running(id)
    assert counter.house.provider.calls["upload"] == uploads
    await counter.end([again])
    assert len(await counter.lines(id)) == 8
