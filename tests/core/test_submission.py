"""What the parts of a submission make of the whole."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from batchbell.core.model import Batch, BatchKind, BatchProblem, Counts, Snapshot, Status
from batchbell.core.results import Results, ResultsState, Tally, Tokens
from batchbell.core.submission import (
    REFUSALS_MAX,
    Expiry,
    Part,
    PartState,
    Submission,
    is_refused,
    is_stale,
    sighting,
)

NOW = 1_790_000_000.0
COMPLETED, EXPIRED, CANCELLED = Status.COMPLETED, Status.EXPIRED, Status.CANCELLED
FAILED, LOST = Status.FAILED, Status.LOST


def a_batch(id: str = "b", status: Status = COMPLETED, **changes: Any) -> Batch:
    seen = Snapshot(id=id, provider_status=status, status=status)
    values: dict[str, Any] = {
        "key": 1,
        "project_id": "default",
        "account_id": "acc",
        "account": "openai",
        "provider": "openai",
        "id": id,
        "status": status,
        "registered_at": NOW,
        "updated_at": NOW,
        "snapshot": seen,
        "ended_at": NOW if status.ended else None,
    }
    return Batch(**(values | changes))


def a_tally(succeeded: int, failed: int = 0, not_run: int = 0, **usage: Tokens) -> Tally:
    lines = succeeded + failed + not_run
    return Tally(
        lines=lines,
        succeeded=succeeded,
        failed=failed,
        not_run=not_run,
        size=lines,
        in_input_order=True,
        usage=usage,
    )


def merged(tally: Tally | None, state: ResultsState = ResultsState.READY) -> Results:
    return Results(
        id="res",
        project_id="default",
        batch_key=1,
        state=state,
        secret="s",
        tries=1,
        reason=None,
        tally=tally,
        created_at=NOW,
        ended_at=NOW,
    )


def a_part(position: int = 1, round: int = 1, **changes: Any) -> Part:
    values: dict[str, Any] = {
        "id": f"prt_{position}_{round}",
        "position": position,
        "round": round,
        "state": PartState.ENDED,
        "lines": 4,
        "size": 400,
        "tokens": 100,
        "tries": 1,
        "due_at": NOW,
        "intent_at": NOW,
        "file_id": "file",
        "looked_through": True,
        "reason": None,
        "batch": a_batch(),
        "results": merged(a_tally(4)),
    }
    return Part(**(values | changes))


def ended(status: Status, succeeded: int = 0, **place: Any) -> Part:
    tally = a_tally(succeeded, not_run=4 - succeeded)
    return a_part(batch=a_batch(status=status), results=merged(tally), **place)


def whole(*parts: Part, **changes: Any) -> Submission:
    values: dict[str, Any] = {
        "batch": a_batch("sub_1", Status.IN_PROGRESS, kind=BatchKind.JOINED),
        "retry_missing": 0,
        "cancelled_at": None,
        "reason": None,
        "failures": 0,
        "created_at": NOW,
        "parts": parts,
    }
    return Submission(**(values | changes))


@pytest.mark.parametrize(
    ("parts", "cancelled", "status"),
    [
        ([ended(COMPLETED, 4), ended(COMPLETED, 4, position=2)], False, COMPLETED),
        ([ended(COMPLETED, 4)], True, COMPLETED),
        ([ended(COMPLETED, 4), ended(CANCELLED, 1, position=2)], True, CANCELLED),
        ([ended(COMPLETED, 4), ended(EXPIRED, 1, position=2)], False, EXPIRED),
        ([ended(CANCELLED, 1), ended(EXPIRED, 1, position=2)], False, EXPIRED),
        ([ended(COMPLETED, 4), ended(CANCELLED, 1, position=2)], False, CANCELLED),
        ([ended(COMPLETED, 4), ended(FAILED, 0, position=2)], False, COMPLETED),
        ([ended(FAILED), ended(LOST, position=2)], False, FAILED),
        ([ended(EXPIRED, 1), ended(COMPLETED, 3, round=2)], False, COMPLETED),
        ([a_part(batch=None, results=None, reason="No.")], False, FAILED),
        ([a_part(batch=None, results=None)], True, CANCELLED),
    ],
)
def test_how_the_whole_ends(parts: list[Part], cancelled: bool, status: Status) -> None:
    found = whole(*parts, cancelled_at=NOW if cancelled else None)
    assert sighting(found, now=NOW).status is status


WAITING = a_part(state=PartState.WAITING, batch=None, results=None, looked_through=False)
RUNNING = a_part(
    state=PartState.RUNNING,
    batch=a_batch(status=Status.IN_PROGRESS),
    results=None,
    looked_through=False,
)
MERGING = a_part(results=merged(None, ResultsState.WAITING), looked_through=False)


@pytest.mark.parametrize(
    ("part", "cancelled", "status"),
    [
        (WAITING, False, Status.VALIDATING),
        (replace(WAITING, state=PartState.SUBMITTING), False, Status.VALIDATING),
        (RUNNING, False, Status.IN_PROGRESS),
        (MERGING, False, Status.IN_PROGRESS),
        (replace(MERGING, results=merged(a_tally(4))), False, Status.IN_PROGRESS),
        (RUNNING, True, Status.CANCELLING),
    ],
)
def test_what_has_not_ended_yet(part: Part, cancelled: bool, status: Status) -> None:
    found = whole(part, cancelled_at=NOW if cancelled else None)
    assert sighting(found, now=NOW).status is status


def test_a_request_that_was_tried_again_counts_once() -> None:
    first = a_part(results=merged(a_tally(1, failed=1, not_run=2)))
    again = a_part(round=2, lines=3, results=merged(a_tally(2, failed=0, not_run=1)))
    other = a_part(position=2, results=merged(a_tally(3, failed=1)))
    counts = sighting(whole(first, again, other), now=NOW).counts
    assert counts == Counts(total=8, completed=6, failed=1)


@given(st.lists(st.tuples(*[st.integers(0, 9)] * 3), min_size=1, max_size=6))
def test_counts_add_up(tallies: list[tuple[int, int, int]]) -> None:
    parts = [
        a_part(n, lines=sum(one), results=merged(a_tally(*one))) for n, one in enumerate(tallies)
    ]
    counts = sighting(whole(*parts), now=NOW).counts
    assert counts is not None
    assert counts.total == sum(map(sum, tallies))
    assert counts.completed == sum(one[0] for one in tallies)
    assert counts.failed == sum(one[1] for one in tallies)


def test_usage_is_summed() -> None:
    tokens = Tokens(
        requests=2, input_tokens=10, cached_tokens=3, output_tokens=5, reasoning_tokens=1
    )
    parts = [a_part(n, results=merged(a_tally(2, m=tokens))) for n in (1, 2)]
    usage = sighting(whole(*parts), now=NOW).usage
    assert usage == {
        "input_tokens": 20,
        "input_tokens_details": {"cached_tokens": 6},
        "output_tokens": 10,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 30,
    }


def test_only_a_lack_of_room_is_worth_another_try() -> None:
    def failed(code: str, **changes: Any) -> Part:
        problems = (BatchProblem(code=code, message="m"),)
        seen = Snapshot(id="b", provider_status="failed", status=FAILED, problems=problems)
        return a_part(batch=a_batch(status=FAILED, snapshot=seen), **changes)

    assert is_refused(failed("token_limit_exceeded"))
    assert not is_refused(failed("invalid_json_line"))
    assert not is_refused(failed("token_limit_exceeded", tries=REFUSALS_MAX))
    assert not is_refused(a_part())


def test_what_is_tried_again_is_bounded_in_tokens() -> None:
    spent = ended(EXPIRED, 1, round=2, tokens=70)
    assert whole(spent).may_spend(10**9)
    assert whole(spent, retry_max_tokens=100).may_spend(30)
    assert not whole(spent, retry_max_tokens=100).may_spend(31)
    assert whole(ended(EXPIRED, 1, tokens=70), retry_max_tokens=30).may_spend(30)
    assert not whole(retry_max_tokens=0).may_spend(1)


def test_what_may_be_retried() -> None:
    lacking = ended(EXPIRED, 1)
    assert whole(lacking, retry_missing=1).may_retry(lacking)
    assert not whole(lacking).may_retry(lacking)
    assert not whole(lacking, retry_missing=1, cancelled_at=NOW).may_retry(lacking)
    second = ended(EXPIRED, 1, round=2)
    assert not whole(second, retry_missing=1).may_retry(second)
    assert not whole(a_part(), retry_missing=1).may_retry(a_part())


@pytest.mark.parametrize(
    ("expiry", "uploaded", "stale"),
    [
        (Expiry(), {"uploaded_at": None}, False),
        (Expiry(output_seconds=3600), {"uploaded_at": NOW - 9e9}, False),
        (Expiry(input_seconds=3600), {"uploaded_at": NOW - 1800}, False),
        (Expiry(input_seconds=3600), {"uploaded_at": NOW - 1801}, True),
        (Expiry(input_seconds=3600), {"uploaded_at": None}, True),
        (Expiry(input_seconds=3600), {"uploaded_at": None, "file_id": None}, False),
    ],
    ids=["no expiry", "output only", "young", "old", "nobody knows", "no file"],
)
def test_a_file_in_the_second_half_of_its_time_is_not_used_any_more(
    expiry: Expiry, uploaded: dict[str, Any], *, stale: bool
) -> None:
    assert is_stale(a_part(**uploaded), expiry, now=NOW) is stale
