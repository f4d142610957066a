"""Events: what happened, test events, and sending an event again."""

from __future__ import annotations

from typing import Annotated, Any

from batchbell.api.answers import Answer, EventWord, Object, Second, about
from batchbell.api.fields import AnyEvent, Identity, Request
from batchbell.core.model import EventType


class TestEventRequest(Request):
    type: AnyEvent | None = EventType.COMPLETED


class ResendRequest(Request):
    endpoint_id: Identity | None = None


class DeliveryCounts(Answer, frozen=True, kw_only=True):
    """How many deliveries of the event are in which state."""

    pending: int
    delivered: int
    exhausted: int
    held: int


class Event(Object, frozen=True, kw_only=True, tag="event"):
    """The body that is sent, and when it was written down."""

    id: str
    type: EventWord
    created_at: Second
    timestamp: str
    data: dict[str, Any]
    recorded_at: Second
    deliveries: Annotated[DeliveryCounts | None, about("Only where one event is asked for.")] = None
