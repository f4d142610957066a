"""The story of one batch: all that became of it, and who heard of it, from the begin on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from batchbell.core.model import Attempt, Batch, Delivery, Event
from batchbell.storage import deliveries
from batchbell.web.dashboard.page import Visitor

DELIVERIES_MOST = 20
"""Of one event; a link leads to all."""
STAMPS = {
    "created_at": "created at the provider",
    "in_progress_at": "in progress",
    "finalizing_at": "finalizing",
    "cancelling_at": "cancelling",
}
"""What the provider says of the way to the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A delivery with its attempts."""

    delivery: Delivery
    attempts: Sequence[Attempt]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something that happened."""

    at: float
    says: str
    tone: str = "calm"
    event: Event | None = None
    sent: Sequence[Sent] = ()
    has_more: bool = False


async def of_batch(visitor: Visitor, batch: Batch, happened: Sequence[Event]) -> list[Step]:
    """Oldest first."""
    steps = [*_of_provider(batch)]
    for event in happened:
        steps.append(await _of_event(visitor, event))
    return sorted(steps, key=lambda step: step.at)


def _of_provider(batch: Batch) -> Iterator[Step]:
    yield Step(at=batch.registered_at, says="registered")
    stamps = batch.snapshot.timestamps if batch.snapshot else {}
    for name, says in STAMPS.items():
        if name in stamps:
            yield Step(at=float(stamps[name]), says=says)
    if batch.ended_at is not None:
        yield Step(at=batch.ended_at, says=str(batch.status), tone=str(batch.status))
    if batch.expunged_at is not None:
        yield Step(at=batch.expunged_at, says="expunged")


async def _of_event(visitor: Visitor, event: Event) -> Step:
    context = visitor.call.context
    page = await context.store.read(
        deliveries.list_deliveries, visitor.project.id, limit=DELIVERIES_MOST, event_id=event.id
    )
    since = visitor.now - context.settings.attempt_retention_days * 86_400.0
    sent = [
        Sent(
            delivery=one,
            attempts=await context.store.read(deliveries.list_attempts, one, kept_since=since),
        )
        for one in page.items
    ]
    return Step(
        at=event.recorded_at, says=event.type, event=event, sent=sent, has_more=page.has_more
    )
