"""What a provider's answer makes of a batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from batchbell.core.lifecycle import (
    BATCH_MOVES,
    EVENT_OF,
    LOST_AFTER_SECONDS,
    LOST_ALIVE_AFTER_SECONDS,
    LOST_ALIVE_MISSES,
    LOST_WATCH_SECONDS,
    POISON_SECONDS,
    observe,
    reopen,
    type_for,
)
from batchbell.core.model import (
    DEFAULT_EVENTS,
    ENDED,
    Batch,
    BatchProblem,
    Counts,
    Doubtful,
    EventType,
    Missing,
    Sighting,
    Status,
)

from .making import NOW, a_batch, a_snapshot

RUNNING = [status for status in Status if not status.ended]
PAIRS = [(here, seen) for here in Status for seen in Status]


@pytest.mark.parametrize(("here", "seen"), PAIRS)
def test_a_batch_moves_where_the_table_lets_it_and_nowhere_else(here: Status, seen: Status) -> None:
    batch = a_batch(here)
    after = observe(batch, a_snapshot(seen), NOW)
    may_move = seen in BATCH_MOVES[here]
    assert after.batch.status is (seen if may_move else here)
    assert after.event is (EVENT_OF.get(seen) if may_move else None)


@pytest.mark.parametrize(
    ("here", "seen"), [(h, s) for h, s in PAIRS if h.ended and h is not Status.LOST]
)
def test_a_late_answer_never_moves_an_ended_batch(here: Status, seen: Status) -> None:
    """Pitfall 2: a late reply wrote a delivered batch back, and a second webhook went out."""
    batch = a_batch(here)
    for sighting in (a_snapshot(seen, counts=Counts(total=1, completed=0, failed=0)), Missing("x")):
        after = observe(batch, sighting, NOW)
        assert after.batch is batch
        assert after.event is None


@pytest.mark.parametrize(
    ("here", "seen"),
    [(h, s) for h, s in PAIRS if not h.ended and s is not h and s not in BATCH_MOVES[h]],
)
def test_a_stale_answer_never_moves_a_running_batch_back(here: Status, seen: Status) -> None:
    newest = a_snapshot(here, counts=Counts(total=9, completed=5, failed=0))
    batch = a_batch(here, snapshot=newest)
    after = observe(batch, a_snapshot(seen, counts=Counts(total=9, completed=1, failed=0)), NOW)
    assert after.batch == batch
    assert after.event is None


def test_every_status_has_its_row_and_an_end_is_final() -> None:
    assert set(BATCH_MOVES) == set(Status)
    assert {s for s in Status if s.ended} == ENDED
    assert all(s not in moves for s, moves in BATCH_MOVES.items())
    assert {s for s in ENDED if BATCH_MOVES[s]} == {Status.LOST}


def test_progress_is_kept_without_an_event() -> None:
    seen = a_snapshot(Status.IN_PROGRESS, counts=Counts(total=9, completed=5, failed=0))
    after = observe(a_batch(Status.IN_PROGRESS), seen, NOW)
    assert after.batch.snapshot == seen
    assert after.batch.updated_at == NOW
    assert after.event is None


def test_nothing_new_changes_nothing_so_that_nothing_is_written() -> None:
    seen = a_snapshot(Status.IN_PROGRESS, timestamps={"created_at": 5})
    batch = a_batch(Status.IN_PROGRESS, snapshot=seen)
    assert observe(batch, replace(seen, timestamps={"created_at": 5}), NOW).batch == batch


@pytest.mark.parametrize("here", RUNNING)
def test_an_unknown_status_is_shown_and_watched_on(here: Status) -> None:
    """Pitfall 17: an unknown word is neither an end nor lost from sight."""
    after = observe(a_batch(here), a_snapshot(None, provider_status="dreaming"), NOW)
    assert after.batch.status is here
    assert after.event is None
    assert after.batch.snapshot is not None
    assert after.batch.snapshot.provider_status == "dreaming"


def test_an_all_failed_batch_ends_at_once_and_for_good() -> None:
    """Pitfall 12: completed, no output file, only an error file."""
    seen = a_snapshot(
        Status.COMPLETED,
        counts=Counts(total=9, completed=0, failed=9),
        output_file_id=None,
        error_file_id="file-e",
    )
    after = observe(a_batch(Status.FINALIZING), seen, NOW)
    assert after.batch.status.ended
    assert after.event is EventType.COMPLETED


def test_a_failed_validation_keeps_the_providers_reasons() -> None:
    problem = BatchProblem(code="invalid_json_line", message="bad", line=7)
    after = observe(a_batch(Status.VALIDATING), a_snapshot(Status.FAILED, problems=(problem,)), NOW)
    assert after.event is EventType.FAILED
    assert after.batch.snapshot is not None
    assert after.batch.snapshot.problems == (problem,)


def test_expiry_is_never_inferred_from_the_clock() -> None:
    """Pitfall 18: Azure lets a batch run on past its 24 hours."""
    seen = a_snapshot(Status.IN_PROGRESS, timestamps={"created_at": 1, "expires_at": 2})
    after = observe(a_batch(Status.IN_PROGRESS), seen, NOW)
    assert after.batch.status is Status.IN_PROGRESS
    assert after.event is None


# --- when it ended -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "stamps", "ended_at"),
    [
        (Status.COMPLETED, {"completed_at": 100, "failed_at": 1}, 100.0),
        (Status.EXPIRED, {"expired_at": 100}, 100.0),
        (Status.CANCELLED, {"cancelled_at": 100, "cancelling_at": 90}, 100.0),
        (Status.FAILED, {"failed_at": 100, "completed_at": 90}, 100.0),
        (Status.FAILED, {"completed_at": 100}, 100.0),  # as Azure stamps it
        (Status.FAILED, {"created_at": 100}, NOW),
        (Status.COMPLETED, {}, NOW),
        (Status.COMPLETED, {"completed_at": 0}, NOW),
        (Status.COMPLETED, {"completed_at": -62_135_596_801}, NOW),
        (Status.COMPLETED, {"completed_at": int(NOW) + 9}, NOW),  # the provider's clock is ahead
        (Status.COMPLETED, {"completed_at": int(NOW) * 1000}, NOW),  # milliseconds
        (Status.COMPLETED, {"completed_at": 10**400}, NOW),
        (Status.LOST, {"completed_at": 100}, 100.0),
    ],
)
def test_an_end_is_dated_by_the_providers_clock_where_that_makes_sense(
    status: Status, stamps: dict[str, int], ended_at: float
) -> None:
    after = observe(a_batch(Status.IN_PROGRESS), a_snapshot(status, timestamps=stamps), NOW)
    assert after.batch.ended_at == ended_at
    assert after.batch.updated_at == NOW


# --- missing -------------------------------------------------------------------------------------

MISSING = Missing("batch_abc", "No batch found with id 'batch_abc'.")
ALIVE = a_snapshot(Status.IN_PROGRESS)


def lost_after(batch: Batch, *, every: float, give_up: float) -> float | None:
    """After how many seconds of the API's own 404, asked for when it is due, the batch is lost."""
    now = NOW
    while now < NOW + give_up:
        if batch.check_at <= now:
            after = observe(batch, MISSING, now)
            batch = after.batch
            if after.event is EventType.LOST:
                return now - NOW
        now += every
    return None


@pytest.mark.parametrize("here", RUNNING)
def test_what_nobody_ever_saw_is_lost_after_two_404s_some_time_apart(here: Status) -> None:
    """Pitfall 5: an unknown batch was polled for ever, and nobody was told."""
    once = observe(a_batch(here), MISSING, NOW)
    assert once.event is None
    assert once.batch.status is here
    assert once.batch.check_at == NOW + LOST_AFTER_SECONDS
    assert once.batch.look_error == MISSING.reason, "what the first look met is shown at once"

    twice = observe(once.batch, MISSING, NOW + LOST_AFTER_SECONDS)
    assert twice.event is EventType.LOST
    assert twice.batch.status is Status.LOST
    assert twice.batch.ended_at == NOW + LOST_AFTER_SECONDS


def test_what_was_seen_alive_is_lost_after_hours_only() -> None:
    """An outage of a gateway, or a slow replica, may last longer than a minute."""
    alive = a_batch(snapshot=ALIVE)
    seconds = lost_after(alive, every=15.0, give_up=86_400.0)
    assert seconds is not None
    assert LOST_ALIVE_AFTER_SECONDS <= seconds <= LOST_ALIVE_AFTER_SECONDS + POISON_SECONDS + 15
    assert lost_after(a_batch(), every=15.0, give_up=86_400.0) == LOST_AFTER_SECONDS


def test_two_404s_hours_apart_are_not_enough_for_what_was_alive() -> None:
    once = observe(a_batch(snapshot=ALIVE), MISSING, NOW).batch
    late = NOW + 2 * LOST_ALIVE_AFTER_SECONDS
    for _ in range(LOST_ALIVE_MISSES - 2):
        after = observe(once, MISSING, late)
        assert after.event is None
        once, late = after.batch, after.batch.check_at
    assert observe(once, MISSING, late).event is EventType.LOST


def test_two_404s_in_quick_succession_are_one() -> None:
    once = observe(a_batch(), MISSING, NOW).batch
    soon = observe(once, MISSING, NOW + LOST_AFTER_SECONDS - 0.01)
    assert soon.event is None
    assert soon.batch == once


def test_a_clock_that_jumps_back_loses_nothing() -> None:
    once = observe(a_batch(), MISSING, NOW).batch
    back = observe(once, MISSING, NOW - 3600)
    assert back.event is None
    assert back.batch.missing_since == NOW - 3600


@pytest.mark.parametrize("seen", [Status.IN_PROGRESS, Status.VALIDATING, None])
def test_a_batch_that_is_seen_again_is_no_longer_missing(seen: Status | None) -> None:
    """Pitfall 17: a missing id is never proof of deletion; even a stale sight counts."""
    once = observe(a_batch(Status.IN_PROGRESS), MISSING, NOW).batch
    back = observe(once, a_snapshot(seen), NOW + 30).batch
    assert (back.missing_since, back.doubts, back.look_error) == (None, 0, None)
    assert back.check_at == 0.0
    assert observe(back, MISSING, NOW + 2 * LOST_AFTER_SECONDS).event is None


# --- what was lost comes back --------------------------------------------------------------------


@pytest.mark.parametrize("seen", [s for s in Status if s is not Status.LOST])
def test_what_was_lost_comes_back_when_it_is_seen(seen: Status) -> None:
    lost = a_batch(Status.LOST, look_error="gone", check_at=NOW + 9, snapshot=ALIVE)
    after = observe(lost, a_snapshot(seen), NOW)
    assert after.batch.status is seen
    assert after.batch.generation == lost.generation + 1, "its end is told as one of a new life"
    assert after.event is EVENT_OF.get(seen)
    assert (after.batch.look_error, after.batch.doubts) == (None, 0)


def test_a_word_that_we_do_not_know_brings_it_back_too() -> None:
    after = observe(a_batch(Status.LOST), a_snapshot(None), NOW)
    assert (after.batch.status, after.event) == (Status.VALIDATING, None)


@pytest.mark.parametrize("sighting", [MISSING, Doubtful("batch_abc", "odd")])
def test_what_stays_lost_is_asked_for_ever_more_rarely(sighting: Sighting) -> None:
    batch, now, looks = a_batch(Status.LOST, ended_at=NOW), NOW, 0
    while now < NOW + LOST_WATCH_SECONDS:
        after = observe(batch, sighting, now)
        assert (after.batch.status, after.event) == (Status.LOST, None)
        assert after.batch.check_at >= now + LOST_AFTER_SECONDS
        batch, now, looks = after.batch, after.batch.check_at, looks + 1
    assert looks < 30


# --- reopen, doubt -------------------------------------------------------------------------------


def test_a_lost_batch_that_is_registered_again_begins_a_new_life() -> None:
    lost = a_batch(
        Status.LOST, missing_since=NOW - 99, check_at=NOW + 9, look_error="odd", doubts=3
    )
    again = reopen(lost, NOW)
    assert again.status is Status.VALIDATING
    assert again.generation == lost.generation + 1
    assert (again.ended_at, again.missing_since, again.look_error) == (None, None, None)
    assert (again.check_at, again.doubts) == (0.0, 0)
    assert observe(again, MISSING, NOW).event is None, "one 404 of the old life must not count"


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.LOST])
def test_no_other_batch_is_ever_reopened(status: Status) -> None:
    batch = a_batch(status)
    assert reopen(batch, NOW) is batch


def test_one_odd_answer_is_asked_again_at_once_and_more_wait_longer_each_time() -> None:
    batch, now, waits = a_batch(Status.FINALIZING), NOW, []
    for _ in range(11):
        after = observe(batch, Doubtful("batch_abc", "request_counts is a list"), now)
        assert (after.event, after.batch.status) == (None, Status.FINALIZING)
        assert after.batch.look_error == "request_counts is a list"
        batch = after.batch
        waits.append(max(0.0, batch.check_at - now))
        now = max(now, batch.check_at)
    assert waits == [0, 0, 60, 120, 240, 480, 960, 1920, 3600, 3600, POISON_SECONDS]
    good = observe(batch, a_snapshot(Status.FINALIZING), now).batch
    assert (good.look_error, good.check_at, good.doubts) == (None, 0.0, 0)


def test_a_row_that_makes_no_sense_is_a_row_that_is_there() -> None:
    batch = a_batch(missing_since=NOW - 10)
    for there, since in ((True, None), (False, NOW - 10)):
        after = observe(batch, Doubtful("batch_abc", "odd", there=there), NOW)
        assert after.batch.missing_since == since


# --- who hears of it -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "wanted", "told"),
    [
        (EventType.COMPLETED, DEFAULT_EVENTS, EventType.COMPLETED),
        (EventType.LOST, DEFAULT_EVENTS, EventType.FAILED),
        (EventType.LOST, (EventType.LOST, EventType.FAILED), EventType.LOST),
        (EventType.LOST, (EventType.COMPLETED,), None),
        (EventType.IN_PROGRESS, DEFAULT_EVENTS, None),
        (EventType.FINALIZING, (EventType.FINALIZING,), EventType.FINALIZING),
        (EventType.FAILED, (EventType.LOST,), None),
        (EventType.COMPLETED, (), None),
    ],
)
def test_type_for(event: EventType, wanted: tuple[EventType, ...], told: EventType | None) -> None:
    assert type_for(event, wanted) is told


def test_whoever_takes_the_default_four_hears_of_every_end() -> None:
    """Pitfall 5: also of a batch that is lost."""
    for end in ENDED:
        assert type_for(EVENT_OF[end], DEFAULT_EVENTS) in DEFAULT_EVENTS


# --- by chance -----------------------------------------------------------------------------------

sightings = st.one_of(
    st.just(MISSING),
    st.builds(Doubtful, st.just("batch_abc"), st.just("odd"), st.booleans()),
    st.builds(
        a_snapshot,
        st.sampled_from([*Status, None]),
        timestamps=st.dictionaries(
            st.sampled_from(["created_at", "completed_at", "failed_at", "expired_at"]),
            st.integers(),
        ),
    ),
)
steps = st.one_of(sightings, st.just("reopen"))


@given(
    start=st.sampled_from(list(Status)),
    walk=st.lists(st.tuples(steps, st.floats(min_value=-100, max_value=4000)), max_size=40),
)
def test_no_sequence_of_answers_leaves_the_table(
    start: Status, walk: list[tuple[Sighting | str, float]]
) -> None:
    """Pitfall 2: each life has one end, told once."""
    batch, now = a_batch(start), NOW
    ends: list[int] = [batch.generation] if start.ended else []
    for step, seconds in walk:
        now += seconds
        before = batch
        match step:
            case "reopen":
                batch, event = reopen(before, now), None
            case str():
                raise AssertionError(step)
            case _:
                after = observe(before, step, now)
                batch, event = after.batch, after.event
        if batch.status is not before.status:
            assert batch.status in BATCH_MOVES[before.status]
        moved = batch.status is not before.status
        assert event is (EVENT_OF.get(batch.status) if moved and step != "reopen" else None)
        if moved and batch.status.ended:
            ends.append(batch.generation)
            assert batch.ended_at is not None
            assert 0 < batch.ended_at <= now
        assert batch.status.ended == (batch.ended_at is not None)
    assert len(ends) == len(set(ends)), "a life ended twice"
