"""Which of a provider's files may go: what is in doubt, or needed by others, stays."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from batchbell.core import deletion as rules
from batchbell.core.deletion import Decision, Deletes, ProviderFile
from batchbell.core.errors import ProviderRateLimited, ProviderRejected, ProviderUnavailable
from batchbell.core.model import Batch, BatchKind, Counts, Snapshot, Status
from batchbell.core.results import ResultsState
from tests.core.test_submission import NOW, a_batch, a_part, a_tally, merged

OUT, ERR = ProviderFile("file-out"), ProviderFile("file-err")
IN = ProviderFile("file-in", is_input=True)


def ended(status: Status = Status.COMPLETED, *, failed: int = 1, **seen: Any) -> Batch:
    """A batch of three requests that has left its files."""
    values: dict[str, Any] = {
        "id": "b",
        "provider_status": status.value,
        "status": status,
        "counts": Counts(total=3, completed=3 - failed, failed=failed),
        "input_file_id": "file-in",
        "output_file_id": "file-out",
        "error_file_id": "file-err" if failed else None,
    }
    return a_batch(status=status, snapshot=Snapshot(**(values | seen)))


GOOD = a_tally(2, failed=1)


def test_nothing_goes_where_nobody_asked() -> None:
    assert rules.decide(Deletes.NONE, ended(), GOOD) is None


def test_the_input_goes_only_where_all_is_to_go() -> None:
    assert rules.decide(Deletes.OUTPUTS, ended(), GOOD) == Decision(files=(OUT, ERR))
    assert rules.decide(Deletes.ALL, ended(), GOOD) == Decision(files=(OUT, ERR, IN))


def test_an_input_that_was_not_read_is_left_alone() -> None:
    unordered = replace(GOOD, in_input_order=False)
    assert rules.decide(Deletes.ALL, ended(), unordered) == Decision(files=(OUT, ERR))


def test_a_batch_that_left_nothing_has_nothing_to_lose() -> None:
    bare = ended(Status.FAILED, output_file_id=None, error_file_id=None)
    assert rules.decide(Deletes.OUTPUTS, bare, GOOD) is None


@pytest.mark.parametrize(
    ("batch", "tally", "words"),
    [
        (ended(counts=None), GOOD, "does not say"),
        (ended(counts=Counts(total=0, completed=0, failed=0)), GOOD, "does not say"),
        (ended(counts=Counts(total=3, completed=2, failed=1, whole=False)), GOOD, "how many"),
        (ended(), a_tally(3), "counts 3 requests"),
        (ended(), a_tally(2), "counts 3 requests"),
        (ended(), replace(GOOD, notes=("1 lines could not be understood.",)), "understood"),
    ],
    ids=[
        "no counts",
        "counts of nothing",
        "counts with holes",
        "another fate",
        "a line less",
        "unreadable",
    ],
)
def test_what_does_not_add_up_stays(batch: Batch, tally: Any, words: str) -> None:
    """Pitfall 21: deletion only after a verified download."""
    for deletes in (Deletes.OUTPUTS, Deletes.ALL):
        decided = rules.decide(deletes, batch, tally)
        assert decided is not None
        assert decided.files == ()
        assert decided.reason is not None
        assert words in decided.reason


def part(position: int, **changes: Any) -> Any:
    seen = ended(output_file_id=f"out-{position}", error_file_id=None, failed=0)
    values = {"batch": seen, "file_id": f"in-{position}", "results": merged(a_tally(3))}
    return a_part(position, **(values | changes))


def submission(total: int) -> Batch:
    seen = Snapshot(
        id="sub_1",
        provider_status="completed",
        status=Status.COMPLETED,
        counts=Counts(total=total, completed=total, failed=0),
    )
    return a_batch("sub_1", kind=BatchKind.JOINED, snapshot=seen)


def test_the_files_of_all_parts_go_together_answers_first() -> None:
    decided = rules.decide(Deletes.ALL, submission(6), a_tally(6), [part(1), part(2)])
    assert decided is not None
    assert [file.id for file in decided.files] == ["out-1", "out-2", "in-1", "in-2"]
    decided = rules.decide(Deletes.OUTPUTS, submission(6), a_tally(6), [part(1), part(2)])
    assert decided is not None
    assert [file.id for file in decided.files] == ["out-1", "out-2"]


@pytest.mark.parametrize(
    "results",
    [None, merged(None, ResultsState.FAILED), merged(a_tally(2))],
    ids=["never asked for", "not merged", "a line less"],
)
def test_one_doubtful_part_keeps_the_files_of_all(results: Any) -> None:
    parts = [part(1), part(2, results=results)]
    decided = rules.decide(Deletes.ALL, submission(6), a_tally(6), parts)
    assert decided is not None
    assert decided.files == ()
    assert decided.reason is not None
    assert "Batch b" in decided.reason or "batch b" in decided.reason


def test_the_input_of_a_part_that_never_ran_goes_too() -> None:
    """The whole counts it as not run; no answer can be lost."""
    seen = ended(Status.FAILED, output_file_id=None, error_file_id=None, counts=None)
    parts = [part(1), part(2, batch=None, results=None), part(3, batch=seen, results=None)]
    decided = rules.decide(Deletes.ALL, submission(3), a_tally(3), parts)
    assert decided is not None
    assert [file.id for file in decided.files] == ["out-1", "in-1", "in-2", "in-3"]


@pytest.mark.parametrize(
    ("batch", "results", "needed"),
    [
        (ended(), merged(GOOD), False),
        (ended(), merged(a_tally(3)), True),
        (ended(), merged(None, ResultsState.WAITING), True),
        (ended(), merged(None, ResultsState.FAILED), True),
        (ended(), None, True),
        (ended(Status.IN_PROGRESS), None, True),
        (ended(Status.LOST), None, True),
        (ended(Status.FAILED, output_file_id=None, error_file_id=None), None, False),
        (ended(Status.FAILED, output_file_id=None, error_file_id=None), merged(GOOD), False),
    ],
    ids=[
        "collected",
        "in doubt",
        "being merged",
        "not merged",
        "nobody asked yet",
        "runs",
        "lost",
        "left nothing",
        "left nothing, and was merged",
    ],
)
def test_an_input_is_needed_until_its_batch_is_collected(
    batch: Batch, results: Any, *, needed: bool
) -> None:
    assert rules.needs_input(batch, results) is needed


def test_tries_become_rarer_and_have_an_end() -> None:
    error = ProviderUnavailable("down")
    waits: list[float] = []
    while (at := rules.next_try(error, tries=len(waits) + 1, now=NOW, rand=0.0)) is not None:
        waits.append(at - NOW)
    assert waits[:3] == [60.0, 120.0, 240.0]
    assert max(waits) == rules.LONGEST_WAIT_SECONDS
    assert len(waits) == rules.TRIES_MAX - 1
    assert 2 < sum(waits) / 86_400 < 4


def test_a_refusal_ends_the_tries_and_a_wish_to_wait_is_kept() -> None:
    assert rules.next_try(ProviderRejected("no"), tries=1, now=NOW, rand=0.0) is None
    slow = ProviderRateLimited("slow", retry_after_seconds=900)
    assert rules.next_try(slow, tries=1, now=NOW, rand=0.0) == NOW + 900
