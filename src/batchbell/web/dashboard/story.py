"""The story of one batch as its page has it: what an event came to stands with the event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batchbell.core.model import Event
from batchbell.core.timeline import Kind, Sent, Timeline

APART = frozenset({Kind.DELIVERY, Kind.ATTEMPT})
"""These are shown with their event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something that happened."""

    at: float
    says: str
    tone: str
    """A status, which has a colour."""
    event: Event | None = None
    sent: Sequence[Sent] = ()


def steps_of(found: Timeline) -> list[Step]:
    """The oldest first."""
    events = {event.id: event for event in found.events}
    steps = []
    for entry in found.entries():
        event = events.get(entry.event_id or "") if entry.kind is Kind.EVENT else None
        if entry.kind not in APART:
            sent = [one for one in found.sent if event and one.delivery.event_id == event.id]
            says = event.type if event else entry.says.removesuffix(".")
            tone = entry.status or "calm"
            steps.append(Step(at=entry.at, says=says, tone=tone, event=event, sent=sent))
    return steps
