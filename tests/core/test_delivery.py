"""Why a delivery waits."""

from __future__ import annotations

from typing import Any

import pytest

from batchbell.core.attachment import ResultsMode
from batchbell.core.delivery import reason
from batchbell.core.model import Delivery, DeliveryState, EndpointState, EventType, Gate
from tests.core.making import NOW


def a_delivery(gate: dict[str, Any], **changes: Any) -> Delivery:
    of_gate: dict[str, Any] = dict.fromkeys(
        ("reason", "paused_until", "opened_at", "probe_at", "rate_limit", "rate_at", "first_id")
    )
    values: dict[str, Any] = dict.fromkeys(
        ("batch_id", "watch_id", "finished_at", "last_status", "last_error", "needs_you")
    )
    values |= {
        "id": "dlv_2",
        "project_id": "default",
        "event_id": "evt_1",
        "event_type": EventType.COMPLETED,
        "endpoint_id": "whe_1",
        "url": "https://receiver.example/hook",
        "state": DeliveryState.PENDING,
        "attempts": 0,
        "due_at": NOW,
        "created_at": NOW - 9,
        "lease_token": None,
        "gate": Gate(**(of_gate | {"state": EndpointState.ACTIVE} | gate)),
    }
    return Delivery(**(values | changes))


@pytest.mark.parametrize(
    ("gate", "changes", "expected"),
    [
        ({}, {}, None),
        ({}, {"due_at": NOW - 300}, "no worker takes it"),
        ({}, {"due_at": NOW + 30, "attempts": 2}, "the next one is at"),
        ({}, {"due_at": NOW + 30, "results": ResultsMode.INLINE}, "results to be merged"),
        ({}, {"due_at": NOW + 30, "lease_token": "l"}, None),
        ({}, {"due_at": NOW - 300, "lease_token": "l"}, "no worker takes it"),
        ({}, {"state": DeliveryState.DELIVERED, "due_at": None}, None),
        ({}, {"state": DeliveryState.EXHAUSTED, "due_at": None}, None),
        (
            {"state": EndpointState.DISABLED, "reason": "answered 410 Gone"},
            {"state": DeliveryState.HELD, "due_at": None},
            "(answered 410 Gone)",
        ),
        ({"paused_until": NOW + 5}, {}, "asked for a pause"),
        ({"paused_until": NOW - 5}, {}, None),
        ({"opened_at": NOW - 90, "probe_at": NOW + 5}, {}, "next probe is at"),
        ({"opened_at": NOW - 90, "probe_at": NOW - 5}, {"due_at": NOW + 60}, "next probe is now"),
        ({"first_id": "dlv_1"}, {}, "dlv_1 comes first"),
        ({"first_id": "dlv_2"}, {}, None),
        ({"rate_limit": 0.5, "rate_at": NOW + 1}, {}, "0.5 calls a second"),
        ({"rate_limit": 0.5, "rate_at": NOW + 1}, {"due_at": NOW + 60}, None),
        ({"paused_until": NOW + 5, "first_id": "dlv_1"}, {}, "asked for a pause"),
    ],
)
def test_the_first_reason_that_keeps_it_is_said(
    gate: dict[str, Any], changes: dict[str, Any], expected: str | None
) -> None:
    why = reason(a_delivery(gate, **changes), NOW)
    assert why is None if expected is None else expected in (why or "")
