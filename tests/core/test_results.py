"""What ends and counts say of files: which are promised, and what contradicts them."""

from __future__ import annotations

from typing import Any

import pytest

from batchbell.core import results as rules
from batchbell.core.model import BatchProblem, Counts, Status
from tests.core.making import a_batch, a_snapshot
from tests.core.test_submission import a_tally

OUT, ERR = {"output_file_id": "file-out"}, {"error_file_id": "file-err"}
NOTHING = {"counts": Counts(total=3, completed=0, failed=0)}
SOME = Counts(total=3, completed=2, failed=1)
HOLES = Counts(total=3, completed=0, failed=0, whole=False)


@pytest.mark.parametrize(
    ("status", "seen", "lacks"),
    [
        (Status.COMPLETED, {}, True),
        (Status.COMPLETED, NOTHING, True),
        (Status.COMPLETED, {"counts": HOLES}, True),
        (Status.COMPLETED, {"counts": SOME}, True),
        (Status.COMPLETED, {"counts": SOME} | ERR, True),
        (Status.COMPLETED, {"counts": SOME} | OUT, False),
        (Status.COMPLETED, {"counts": Counts(total=3, completed=0, failed=3)}, True),
        (Status.COMPLETED, {"counts": Counts(total=3, completed=0, failed=3)} | ERR, False),
        (Status.COMPLETED, ERR, False),
        (Status.EXPIRED, {}, True),
        (Status.EXPIRED, NOTHING, False),
        (Status.CANCELLED, {"counts": Counts(total=3, completed=1, failed=0)}, True),
        (Status.FAILED, {}, True),
        (Status.FAILED, {"problems": (BatchProblem(code="x", message="y"),)}, False),
        (Status.IN_PROGRESS, {"counts": SOME}, False),
        (None, {"counts": SOME}, False),
    ],
)
def test_an_end_lacks_files_where_answers_may_be_in_some(
    status: Status | None, seen: dict[str, Any], lacks: bool
) -> None:
    assert rules.lacks_files(a_snapshot(status, **seen)) is lacks


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (SOME, None),
        (Counts(total=3, completed=3, failed=0), "counts 3 requests, 3 completed"),
        (HOLES, None),
        (Counts(total=3, completed=3, failed=0, whole=False), None),
        (Counts(total=0, completed=0, failed=0), None),
        (None, None),
    ],
)
def test_only_counts_that_are_whole_contradict_the_files(
    counts: Counts | None, words: str | None
) -> None:
    batch = a_batch(Status.COMPLETED, snapshot=a_snapshot(Status.COMPLETED, counts=counts))
    found = rules.mismatch(batch, a_tally(2, failed=1))
    assert found is None if words is None else (found is not None and words in found)


@pytest.mark.parametrize(("total", "lines"), [(2, 2), (0, None), (10**6, None)])
def test_a_file_may_have_the_longest_line_for_each_request(total: int, lines: int | None) -> None:
    counts = Counts(total=total, completed=total, failed=0)
    batch = a_batch(Status.COMPLETED, snapshot=a_snapshot(Status.COMPLETED, counts=counts))
    most = 20 * 10**9
    expected = most if lines is None else lines * 64 * 2**20
    assert rules.file_max_bytes(batch, most) == expected
