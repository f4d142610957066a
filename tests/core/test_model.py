"""Ids, fingerprints and outcomes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from batchbell.core.model import (
    ID_PATTERN,
    BatchKind,
    BatchOutcome,
    BatchProblem,
    Counts,
    Status,
    new_id,
    outcome_of,
)

from .making import NOW, a_batch, a_snapshot

times = st.floats(min_value=0, max_value=30_000_000_000)
chance = st.binary(min_size=10, max_size=10)


@given(first=times, second=times, rand=st.tuples(chance, chance))
def test_ids_sort_by_time(first: float, second: float, rand: tuple[bytes, bytes]) -> None:
    if int(first * 1000) >= int(second * 1000):
        return
    assert new_id("evt", now=first, rand=rand[0]) < new_id("evt", now=second, rand=rand[1])


def test_ids_a_millisecond_apart_sort_as_well() -> None:
    early, late = b"\xff" * 10, b"\x00" * 10
    assert new_id("evt", now=NOW, rand=early) < new_id("evt", now=NOW + 0.001, rand=late)


@given(now=times, rand=chance)
def test_an_id_is_one_plain_token_without_a_dot(now: float, rand: bytes) -> None:
    """The signed text is `id.timestamp.body`: a dot in the id would make it ambiguous."""
    assert re.fullmatch(r"evt_[0-9a-hjkmnp-tv-z]{25}", new_id("evt", now=now, rand=rand))


@given(now=times, rand=st.lists(chance, unique=True, max_size=50))
def test_ids_of_one_moment_differ_as_their_chance_differs(now: float, rand: list[bytes]) -> None:
    assert len({new_id("dlv", now=now, rand=one) for one in rand}) == len(rand)


@pytest.mark.parametrize(
    "good",
    ["batch_abc", "a", "a.b:c@d=e+f-g~h", "0", "batches/abc123", "accounts/a/jobs/b", "x" * 512],
)
def test_a_provider_id_is_plain_tokens_with_slashes_between_them(good: str) -> None:
    assert re.fullmatch(ID_PATTERN, good)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "../x",
        "a/../b",
        "a/..",
        "a/.b",
        "a//b",
        "/a",
        "a/",
        "a b",
        ".a",
        "-a",
        "a%2f",
        "é",
        "a?",
    ],
)
def test_a_provider_id_never_walks_a_url(bad: str) -> None:
    assert not re.fullmatch(ID_PATTERN, bad)


FULL = a_snapshot(
    Status.IN_PROGRESS,
    counts=Counts(total=3, completed=1, failed=1),
    endpoint="/v1/chat/completions",
    model="gpt",
    completion_window="24h",
    input_file_id="file-1",
    output_file_id="file-2",
    error_file_id="file-3",
    timestamps={"created_at": 1, "in_progress_at": 2},
    problems=(BatchProblem(code="x", message="y", param=None, line=3),),
    usage={"total_tokens": 9, "input_tokens": 4},
    metadata={"a": "b", "c": "d"},
)

CHANGES: list[dict[str, Any]] = [
    {"provider_status": "IN_PROGRESS"},
    {"status": None},
    {"counts": None},
    {"counts": Counts(total=3, completed=2, failed=1)},
    {"counts": Counts(total=3, completed=1, failed=2)},
    {"endpoint": "/v1/responses"},
    {"model": None},
    {"completion_window": None},
    {"input_file_id": "file-9"},
    {"output_file_id": None},
    {"error_file_id": "file-2"},
    {"timestamps": {"created_at": 1}},
    {"problems": ()},
    {"problems": (BatchProblem(code="x", message="y", param=None, line=4),)},
    {"usage": {"total_tokens": 10, "input_tokens": 4}},
    {"metadata": {"a": "d", "c": "b"}},
    {"metadata": None},
]


def test_a_fingerprint_ignores_the_order_in_which_a_provider_lists_its_fields() -> None:
    shuffled = replace(
        FULL,
        timestamps={"in_progress_at": 2, "created_at": 1},
        usage={"input_tokens": 4, "total_tokens": 9},
        metadata={"c": "d", "a": "b"},
    )
    assert shuffled.fingerprint == FULL.fingerprint


def test_every_change_that_we_keep_changes_the_fingerprint() -> None:
    prints = {FULL.fingerprint} | {replace(FULL, **change).fingerprint for change in CHANGES}
    assert len(prints) == len(CHANGES) + 1


def test_a_fingerprint_is_the_same_for_ever() -> None:
    """Another one would have every open batch written anew after an upgrade."""
    assert FULL.fingerprint == "5df37c86492caaa1"
    odd = {"big": 1e16, "small": 0.00001, "list": [1, None, True, {"z": 1, "y": 2}]}
    assert a_snapshot(model="\u00e9\x7f", usage=odd).fingerprint == "aa84d618091d3d66"


def test_a_fingerprint_survives_half_an_emoji() -> None:
    assert a_snapshot(model="\ud83d").fingerprint != a_snapshot(model="\ud83e").fingerprint


@pytest.mark.parametrize(
    ("counts", "status", "outcome"),
    [
        (Counts(total=3, completed=3, failed=0), Status.COMPLETED, BatchOutcome.SUCCEEDED),
        (Counts(total=3, completed=2, failed=1), Status.COMPLETED, BatchOutcome.PARTIAL),
        (Counts(total=3, completed=0, failed=3), Status.COMPLETED, BatchOutcome.NONE),
        (Counts(total=0, completed=0, failed=0), Status.COMPLETED, None),
        (Counts(total=0, completed=0, failed=0), Status.FAILED, BatchOutcome.NONE),
        (Counts(total=3, completed=1, failed=0), Status.COMPLETED, None),
        (Counts(total=3, completed=3, failed=0, whole=False), Status.COMPLETED, None),
        (Counts(total=3, completed=3, failed=1), Status.CANCELLED, None),
        (Counts(total=3, completed=2, failed=0), Status.EXPIRED, BatchOutcome.PARTIAL),
        (Counts(total=3, completed=1, failed=0), Status.CANCELLED, BatchOutcome.PARTIAL),
        (Counts(total=3, completed=3, failed=0), Status.CANCELLED, BatchOutcome.SUCCEEDED),
        (None, Status.COMPLETED, None),
        (None, Status.EXPIRED, None),
        (None, Status.FAILED, BatchOutcome.NONE),
        (None, Status.LOST, BatchOutcome.NONE),
    ],
)
def test_the_outcome_comes_from_whole_counts_and_not_from_the_status(
    counts: Counts | None, status: Status, outcome: BatchOutcome | None
) -> None:
    """Pitfall 9 and pitfall 12: a batch in which every request failed looked completed."""
    assert outcome_of(counts, status) is outcome
    seen = a_snapshot(status, counts=counts)
    assert a_batch(status, snapshot=seen, ended_at=NOW).outcome is outcome


def test_of_a_submission_some_requests_may_never_have_run() -> None:
    seen = a_snapshot(Status.COMPLETED, counts=Counts(total=8, completed=4, failed=0))
    joined = a_batch(Status.COMPLETED, snapshot=seen, ended_at=NOW, kind=BatchKind.JOINED)
    assert joined.outcome is BatchOutcome.PARTIAL


@pytest.mark.parametrize("status", [s for s in Status if not s.ended])
def test_a_running_batch_has_no_outcome_yet(status: Status) -> None:
    counts = Counts(total=1, completed=1, failed=0)
    assert a_batch(status, snapshot=a_snapshot(status, counts=counts)).outcome is None
