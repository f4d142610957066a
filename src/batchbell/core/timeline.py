"""The story of one batch: what was known of it when, and what each webhook came to.

Made of what is kept of it, and ordered by time. A provider's times and ours are by two clocks, so
an end may stand before the moment in which it was seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from batchbell.core.attachment import ResultsState
from batchbell.core.model import Attempt, Batch, Delivery, Event, Watch
from batchbell.core.outcome import Timings
from batchbell.core.results import EXPUNGED_AT, Results

COMING = frozenset({"expires_at"})
"""Times of a provider that are about the future."""


class Kind(StrEnum):
    """What an entry is about. At one moment they stand in this order."""

    AT_PROVIDER = "at_provider"
    REGISTERED = "registered"
    WATCHED = "watched"
    SEEN = "seen"
    ENDED = "ended"
    RESULTS = "results"
    EVENT = "event"
    DELIVERY = "delivery"
    ATTEMPT = "attempt"
    EXPUNGED = "expunged"


class Entry(Struct, frozen=True, kw_only=True):
    """Something that happened `at` a time, in seconds since the epoch, and `says` what."""

    at: float
    kind: Kind
    says: str
    status: str | None = None
    """The batch's, a delivery's state, or how far results are."""
    provider_status: str | None = None
    watch_id: str | None = None
    endpoint_id: str | None = None
    url: str | None = None
    event_id: str | None = None
    event_type: str | None = None
    delivery_id: str | None = None
    attempt: int | None = None
    """Counts from 1."""
    http_status: int | None = None
    error: str | None = None
    duration_ms: float | None = None
    timings: Timings | None = None


class Sent(Struct, frozen=True, kw_only=True):
    """A delivery, and its attempts that are kept."""

    delivery: Delivery
    attempts: Sequence[Attempt]


class Timeline(Struct, frozen=True, kw_only=True):
    """All that is kept of a batch; `left_out` names what there is more of than was read."""

    batch: Batch
    watches: Sequence[Watch]
    results: Sequence[Results]
    events: Sequence[Event]
    sent: Sequence[Sent]
    left_out: Sequence[str] = ()

    def entries(self) -> list[Entry]:
        """The oldest first."""
        order = {kind: place for place, kind in enumerate(Kind)}
        return sorted(self._entries(), key=lambda one: (one.at, order[one.kind]))

    def _entries(self) -> Iterator[Entry]:
        yield from _of_batch(self.batch)
        for watch in self.watches:
            yield _of_watch(watch)
        for results in self.results:
            yield from _of_results(results)
        for event in self.events:
            yield _of_event(event)
        for sent in self.sent:
            yield from _of_delivery(sent)


def _of_batch(batch: Batch) -> Iterator[Entry]:
    stamps: Mapping[str, int] = batch.snapshot.timestamps if batch.snapshot else {}
    for name, at in stamps.items():
        if name not in COMING:
            what = name.removesuffix("_at").replace("_", " ")
            yield Entry(at=at, kind=Kind.AT_PROVIDER, says=f"By the provider's clock: {what}.")
    yield Entry(at=batch.registered_at, kind=Kind.REGISTERED, says="Registered.")
    yield from _of_history(batch)
    if batch.ended_at is not None:
        outcome = batch.outcome
        yielded = "What it yielded is not known." if outcome is None else f"Outcome: {outcome}."
        yield Entry(
            at=batch.ended_at,
            kind=Kind.ENDED,
            says=f"Ended: {batch.status}. {yielded}",
            status=batch.status,
        )
    if batch.expunged_at is not None:
        says = "Its payloads were removed on request."
        yield Entry(at=batch.expunged_at, kind=Kind.EXPUNGED, says=says)


def _of_history(batch: Batch) -> Iterator[Entry]:
    seen_before = False
    for change in batch.history:
        word, status = change.provider_status, change.status
        seen = "Seen" if seen_before else "First seen"
        theirs = "" if word in (None, status) else f"; the provider says {word!r}"
        seen_before = seen_before or word is not None
        yield Entry(
            at=change.at,
            kind=Kind.SEEN,
            says=f"{seen}: {status}{theirs}." if word is not None else f"Now {status}.",
            status=status,
            provider_status=word,
        )


def _of_watch(watch: Watch) -> Entry:
    return Entry(
        at=watch.created_at,
        kind=Kind.WATCHED,
        says=f"{watch.url} asked for {', '.join(watch.events)}.",
        watch_id=watch.id,
        endpoint_id=watch.endpoint_id,
        url=watch.url,
    )


def _of_results(found: Results) -> Iterator[Entry]:
    yield Entry(at=found.created_at, kind=Kind.RESULTS, says="Results asked for.")
    tally = found.tally
    if found.state is ResultsState.WAITING:
        if found.reason:
            tries = _number(found.tries, "try", "tries")
            says = f"Results are tried again, after {tries} so far: {found.reason}"
            yield Entry(at=found.created_at, kind=Kind.RESULTS, says=says, error=found.reason)
        return
    if found.ended_at is None or found.ended_at == EXPUNGED_AT:
        return
    if found.state is ResultsState.READY and tally is not None:
        says = (
            f"Results merged: {_number(tally.lines, 'line')}, {tally.succeeded:,} succeeded,"
            f" {tally.failed:,} failed, {tally.not_run:,} not run."
        )
    else:
        tries = _number(found.tries, "try", "tries")
        says = f"Results given up after {tries}: {found.reason}"
    yield Entry(
        at=found.ended_at,
        kind=Kind.RESULTS,
        says=says,
        status=found.state,
        error=found.reason,
    )


def _number(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _of_event(event: Event) -> Entry:
    return Entry(
        at=event.recorded_at,
        kind=Kind.EVENT,
        says=f"Event {event.type}.",
        event_id=event.id,
        event_type=event.type,
    )


def _of_delivery(sent: Sent) -> Iterator[Entry]:
    delivery = sent.delivery
    yield Entry(
        at=delivery.created_at,
        kind=Kind.DELIVERY,
        says=f"{delivery.event_type} for {delivery.url}: {delivery.state}.",
        status=delivery.state,
        watch_id=delivery.watch_id,
        endpoint_id=delivery.endpoint_id,
        url=delivery.url,
        event_id=delivery.event_id,
        event_type=delivery.event_type,
        delivery_id=delivery.id,
        error=delivery.needs_you,
    )
    yield from _of_attempts(sent.attempts, delivery)


def _of_attempts(made: Iterable[Attempt], delivery: Delivery) -> Iterator[Entry]:
    last = delivery.created_at
    for attempt in made:
        outcome, about = attempt.outcome, f"Attempt {attempt.number}"
        if outcome is None:  # a crash hid it, and when it was made
            says = f"{about}: the process was stopped, and it was made again."
            yield _entry_of(delivery, attempt, at=last, says=says)
            continue
        last = outcome.started_at
        failed = outcome.detail or outcome.fault
        says = f"HTTP {outcome.status}" if outcome.status is not None else str(failed).rstrip(".")
        yield _entry_of(
            delivery,
            attempt,
            at=last,
            says=f"{about} to {delivery.url}: {says}, after {outcome.duration_ms:,.0f} ms.",
            status="delivered" if outcome.success else "failed",
            http_status=outcome.status,
            error=None if outcome.success else failed,
            duration_ms=outcome.duration_ms,
            timings=outcome.timings,
        )


def _entry_of(delivery: Delivery, attempt: Attempt, **more: object) -> Entry:
    return Entry(
        kind=Kind.ATTEMPT,
        endpoint_id=delivery.endpoint_id,
        url=delivery.url,
        event_id=delivery.event_id,
        event_type=delivery.event_type,
        delivery_id=delivery.id,
        attempt=attempt.number,
        **more,  # type: ignore[arg-type]
    )
