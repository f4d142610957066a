"""Events: test events, and sending an event again."""

from __future__ import annotations

from batchbell.api.fields import AnyEvent, Identity, Request
from batchbell.core.model import EventType


class TestEventRequest(Request):
    type: AnyEvent | None = EventType.COMPLETED


class ResendRequest(Request):
    endpoint_id: Identity | None = None
