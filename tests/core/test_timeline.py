"""What a timeline says, and in which order."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from batchbell.core.attachment import ResultsState
from batchbell.core.lifecycle import observe, reopen
from batchbell.core.model import (
    HISTORY_MOST,
    Attempt,
    Batch,
    Counts,
    Delivery,
    DeliveryState,
    EventType,
    Fault,
    Missing,
    Outcome,
    Snapshot,
    Status,
)
from batchbell.core.results import Results, Tally
from batchbell.core.timeline import Kind, Sent, Timeline
from tests.core.making import a_batch

TALLY = Tally(lines=3, succeeded=2, failed=1, not_run=0, size=9, in_input_order=True)


def seen(word: str, status: Status | None, **more: Any) -> Snapshot:
    return Snapshot(id="b", provider_status=word, status=status, **more)


def after(batch: Batch, *words: tuple[str, Status | None]) -> Batch:
    for at, (word, status) in enumerate(words, 101):
        batch = observe(batch, seen(word, status), float(at)).batch
    return batch


def changes(batch: Batch) -> list[tuple[float, str, str | None]]:
    return [(one.at, one.status.value, one.provider_status) for one in batch.history]


def test_a_batch_remembers_each_status_and_the_providers_word_once() -> None:
    running = Status.IN_PROGRESS
    batch = after(
        a_batch(Status.VALIDATING),
        ("QUEUED", Status.VALIDATING),
        ("QUEUED", Status.VALIDATING),
        ("RUNNING", running),
        ("dreaming", None),
        ("QUEUED", Status.VALIDATING),
        ("DONE", Status.COMPLETED),
    )
    assert changes(batch) == [
        (101.0, "validating", "QUEUED"),
        (103.0, "in_progress", "RUNNING"),
        (104.0, "in_progress", "dreaming"),
        (106.0, "completed", "DONE"),
    ]


def test_a_batch_that_is_lost_and_found_remembers_both() -> None:
    batch = observe(a_batch(), Missing("b"), 100.0).batch
    batch = observe(batch, Missing("b"), 100.0 + 3600).batch
    batch = observe(batch, seen("RUNNING", Status.IN_PROGRESS), 9000.0).batch
    assert changes(batch) == [(3700.0, "lost", None), (9000.0, "in_progress", "RUNNING")]
    assert reopen(batch, 9001.0).history == batch.history


def test_a_lost_batch_that_is_registered_again_remembers_that() -> None:
    batch = observe(a_batch(), Missing("b"), 100.0).batch
    batch = reopen(observe(batch, Missing("b"), 3700.0).batch, 9000.0)
    assert changes(batch) == [(3700.0, "lost", None), (9000.0, "validating", None)]
    said = [says for _, kind, says in of(batch) if kind is Kind.SEEN]
    assert said == ["Now lost.", "Now validating."]


def test_a_word_that_changes_for_ever_is_kept_fifty_times() -> None:
    words = [(f"word{n}", None) for n in range(HISTORY_MOST + 9)]
    batch = after(a_batch(), *words)
    assert len(batch.history) == HISTORY_MOST
    assert batch.history[-1].provider_status == words[-1][0]


def of(batch: Batch, **more: Any) -> list[tuple[float, Kind, str]]:
    parts: dict[str, Any] = {"watches": (), "results": (), "events": (), "sent": ()}
    story = Timeline(batch=batch, **(parts | more))
    return [(one.at, one.kind, one.says) for one in story.entries()]


def test_a_batch_tells_what_it_went_through_in_the_order_of_time() -> None:
    counts = Counts(total=2, completed=1, failed=1)
    stamps = {"created_at": 90, "completed_at": 104, "expires_at": 900}
    batch = after(replace(a_batch(), registered_at=100.0), ("RUNNING", Status.IN_PROGRESS))
    done = seen("completed", Status.COMPLETED, counts=counts, timestamps=stamps)
    batch = replace(observe(batch, done, 105.0).batch, expunged_at=200.0)
    assert of(batch) == [
        (90, Kind.AT_PROVIDER, "By the provider's clock: created."),
        (100.0, Kind.REGISTERED, "Registered."),
        (101.0, Kind.SEEN, "First seen: in_progress; the provider says 'RUNNING'."),
        (104, Kind.AT_PROVIDER, "By the provider's clock: completed."),
        (104.0, Kind.ENDED, "Ended: completed. Outcome: partial."),
        (105.0, Kind.SEEN, "Seen: completed."),
        (200.0, Kind.EXPUNGED, "Its payloads were removed on request."),
    ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"state": ResultsState.WAITING}, []),
        (
            {"state": ResultsState.WAITING, "reason": "HTTP 503", "tries": 2},
            ["Results are tried again, after 2 tries so far: HTTP 503"],
        ),
        (
            {"tally": TALLY, "ended_at": 9.0},
            ["Results merged: 3 lines, 2 succeeded, 1 failed, 0 not run."],
        ),
        (
            {"tally": replace(TALLY, lines=1, succeeded=1, failed=0), "ended_at": 9.0},
            ["Results merged: 1 line, 1 succeeded, 0 failed, 0 not run."],
        ),
        (
            {"state": ResultsState.FAILED, "reason": "No file.", "ended_at": 9.0, "tries": 8},
            ["Results given up after 8 tries: No file."],
        ),
        ({"state": ResultsState.FAILED, "reason": "Expunged.", "ended_at": 0.0}, []),
    ],
)
def test_results_say_how_far_they_are(changes: dict[str, Any], says: list[str]) -> None:
    values: dict[str, Any] = {"state": ResultsState.READY, "reason": None, "tally": None}
    values |= {"created_at": 5.0, "ended_at": None, "tries": 1, **changes}
    made = Results(id="res", project_id="p", batch_key=1, secret="s", **values)
    told = [says for _, kind, says in of(a_batch(), results=[made]) if kind is Kind.RESULTS]
    assert told == ["Results asked for.", *says]


def a_delivery() -> Delivery:
    return Delivery(
        id="dlv_1",
        project_id="p",
        event_id="evt_1",
        event_type=EventType.COMPLETED,
        batch_id="b",
        endpoint_id="whe_1",
        watch_id="wat_1",
        url="https://a.example",
        state=DeliveryState.DELIVERED,
        attempts=3,
        due_at=None,
        created_at=10.0,
        finished_at=20.0,
        last_status=200,
        last_error=None,
        needs_you=None,
        lease_token=None,
    )


@pytest.mark.parametrize(
    ("outcome", "at", "says", "error"),
    [
        (
            Outcome(status=200, started_at=11.5, duration_ms=12.4),
            11.5,
            "Attempt 2 to https://a.example: HTTP 200, after 12 ms.",
            None,
        ),
        (
            Outcome(status=500, started_at=11.5, duration_ms=1200),
            11.5,
            "Attempt 2 to https://a.example: HTTP 500, after 1,200 ms.",
            None,
        ),
        (
            Outcome(fault=Fault.REFUSED, detail="Refused.", started_at=11.5, duration_ms=3),
            11.5,
            "Attempt 2 to https://a.example: Refused, after 3 ms.",
            "Refused.",
        ),
        (None, 10.0, "Attempt 2: the process was stopped, and it was made again.", None),
    ],
)
def test_attempts_say_what_came_of_them(
    outcome: Outcome | None, at: float, says: str, error: str | None
) -> None:
    attempt = Attempt(delivery_id="dlv_1", number=2, outcome=outcome)
    sent = Sent(delivery=a_delivery(), attempts=[attempt])
    story = Timeline(batch=a_batch(), watches=(), results=(), events=(), sent=[sent])
    (entry,) = [one for one in story.entries() if one.kind is Kind.ATTEMPT]
    assert (entry.at, entry.says, entry.error, entry.attempt) == (at, says, error, 2)
    assert entry.delivery_id == "dlv_1"
