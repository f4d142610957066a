"""What a test may force: ends, words, and a schedule that is a pure function of the time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI

from batchbell.core.model import Status
from batchbell.sandbox import OPEN, Sandbox, SandboxProvider, Schedule, problem
from batchbell.sandbox.schedule import progress

from .making import FakeClock, lines_of

RANK = ["validating", "in_progress", "finalizing", "cancelling", "ended"]


async def test_an_added_batch_stays_open_until_it_is_finished(
    client: AsyncOpenAI, sandbox: Sandbox, clock: FakeClock
) -> None:
    batch_id = sandbox.provider.add_batch(total=5)
    clock.advance(1e6)
    assert (await client.batches.retrieve(batch_id)).status == "in_progress"
    sandbox.provider.finish(batch_id, failed=2)
    batch = await client.batches.retrieve(batch_id)
    assert (batch.status, batch.completed_at) == ("completed", int(clock.now))
    assert batch.request_counts.model_dump() == {"total": 5, "completed": 3, "failed": 2}
    assert len(await lines_of(client, batch.output_file_id)) == 3
    assert len(await lines_of(client, batch.error_file_id)) == 2


@pytest.mark.parametrize("status", ["expired", "cancelled"])
async def test_a_batch_that_ended_early_keeps_its_part(
    client: AsyncOpenAI, sandbox: Sandbox, status: str
) -> None:
    batch_id = sandbox.provider.add_batch(total=5)
    sandbox.provider.finish(batch_id, status, completed=2, failed=1)
    batch = await client.batches.retrieve(batch_id)
    assert batch.status == status
    assert getattr(batch, f"{status}_at") is not None
    assert len(await lines_of(client, batch.output_file_id)) == 2
    errors = await lines_of(client, batch.error_file_id)
    assert [line["error"] and line["error"]["code"] for line in errors] == [
        None,
        f"batch_{status}",
        f"batch_{status}",
    ]


async def test_a_batch_fails_for_the_given_reasons(client: AsyncOpenAI, sandbox: Sandbox) -> None:
    batch_id = sandbox.provider.add_batch()
    sandbox.provider.finish(
        batch_id, "failed", problems=[problem("invalid_json_line", "Not JSON.", line=3)]
    )
    batch = await client.batches.retrieve(batch_id)
    assert batch.status == "failed"
    assert [(p.code, p.line) for p in batch.errors.data] == [("invalid_json_line", 3)]


def test_an_unknown_word_is_shown_until_it_is_taken_back() -> None:
    provider = SandboxProvider()
    batch_id = provider.add_batch(total=9)
    provider.set_status(batch_id, "paused_for_review", completed=4, failed=1)
    shown = provider.retrieve(batch_id)
    assert shown["status"] == "paused_for_review"
    assert shown["request_counts"] == {"total": 9, "completed": 4, "failed": 1}
    provider.set_status(batch_id, None)
    assert provider.retrieve(batch_id)["status"] == "in_progress"


def test_a_word_that_is_no_end_does_not_finish() -> None:
    provider = SandboxProvider()
    batch_id = provider.add_batch()
    with pytest.raises(ValueError, match="no end"):
        provider.finish(batch_id, "in_progress")


@given(
    plan=st.builds(
        Schedule,
        validating_seconds=st.floats(0, 10),
        in_progress_seconds=st.floats(0, 10),
        finalizing_seconds=st.floats(0, 10),
        cancelling_seconds=st.floats(0, 10),
        fail_fraction=st.floats(0, 1),
        ends_as=st.sampled_from(["completed", "failed", "expired", "cancelled"]).map(Status),
    ),
    times=st.lists(st.floats(0, 60), min_size=2).map(sorted),
    total=st.integers(0, 1000),
    cancelled_at=st.none() | st.floats(0, 60),
)
def test_a_batch_never_moves_back(
    plan: Schedule, times: list[float], total: int, cancelled_at: float | None
) -> None:
    rank = completed = failed = 0
    for now in times:
        at = progress(
            plan, created_at=0, total=total, valid=True, cancelled_at=cancelled_at, now=now
        )
        here = RANK.index("ended" if at.status.ended else at.status)
        assert (here, at.completed, at.failed) >= (rank, completed, failed)
        assert at.completed >= completed
        assert at.failed >= failed
        assert at.done <= total
        rank, completed, failed = here, at.completed, at.failed


def test_an_open_schedule_can_still_be_cancelled() -> None:
    at = progress(OPEN, created_at=0, total=10, valid=True, cancelled_at=5, now=1e9)
    assert (at.status, at.done) == (Status.CANCELLED, 0)
