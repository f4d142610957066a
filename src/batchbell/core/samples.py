"""Test events: of batches that never were, and of endpoints that are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchbell.core import payload
from batchbell.core.health import GONE
from batchbell.core.lifecycle import EVENT_OF
from batchbell.core.model import Alarm, Batch, Counts, EventType, Snapshot, Status
from batchbell.core.notices import Notice

STATUS_OF = {type_: status for status, type_ in EVENT_OF.items()} | {
    EventType.RESULTS_READY: Status.COMPLETED,
    EventType.STALLED: Status.IN_PROGRESS,
    EventType.EXPIRING_SOON: Status.IN_PROGRESS,
}
ALARM_OF = {EventType.STALLED: Alarm.OVERDUE, EventType.EXPIRING_SOON: Alarm.EXPIRING_SOON}
AGE_OF = {EventType.STALLED: 25 * 3600, EventType.EXPIRING_SOON: 23 * 3600}
"""How long ago the batch was made, in seconds, where that matters."""
SAMPLE_ID = "batch_test"
HOUR = 3600


def sample_body(event_id: str, type_: EventType, *, project_id: str, now: float) -> str:
    """The canonical body of a test event of any type. Something in it says that it is a test."""
    if type_.of_batch:
        batch = sample_batch(type_, project_id=project_id, now=now)
        if type_ in ALARM_OF:
            return payload.alarm_body(event_id, ALARM_OF[type_], batch, about=batch, now=now)
        return payload.event_body(event_id, type_, batch, occurred_at=now)
    data = {**_sample_data(type_, int(now)), "test": True}
    notice = Notice(type=type_, project_id=project_id, at=now, data=data)
    return payload.notice_body(event_id, notice)


def _sample_data(type_: EventType, now: int) -> Mapping[str, Any]:
    if type_.startswith("endpoint."):
        return _sample_endpoint(type_, now)
    if type_ is EventType.ACCOUNT_UNREACHABLE:
        return {
            "id": "acc_test",
            "account": "test",
            "provider": "test",
            "reason": "The provider answered 401: this is a test.",
            "since": now,
        }
    if type_ is EventType.DELIVERY_EXHAUSTED:
        return {
            "id": "dlv_test",
            "event_id": "evt_test",
            "event_type": EventType.COMPLETED.value,
            "batch_id": SAMPLE_ID,
            "account": "test",
            "endpoint_id": "whe_test",
            "url": "https://receiver.example/hook",
            "attempts": 12,
            "last_status": 500,
            "last_error": "HTTP 500",
            "needs_you": None,
        }
    return {}


def _sample_endpoint(type_: EventType, now: int) -> Mapping[str, Any]:
    failing = type_ is EventType.ENDPOINT_FAILING
    disabled = type_ is EventType.ENDPOINT_DISABLED
    return {
        "id": "whe_test",
        "name": "test",
        "url": "https://receiver.example/hook",
        "state": "failing" if failing else "disabled" if disabled else "active",
        "reason": GONE if disabled else None,
        "failures": 12,
        "failing_since": now - HOUR,
        "failing_seconds": HOUR,
        "opened_at": now - HOUR if failing else None,
        "next_probe_at": now + HOUR // 4 if failing else None,
    }


def sample_batch(type_: EventType, *, project_id: str, now: float) -> Batch:
    """A batch to which this has just happened. Its metadata says that it is a test."""
    status = STATUS_OF[type_]
    completed = 3 if status is Status.COMPLETED else 0
    created_at = now - AGE_OF.get(type_, 0)
    seen = Snapshot(
        id=SAMPLE_ID,
        provider_status=status.value,
        status=status,
        counts=Counts(total=3, completed=completed, failed=0),
        endpoint="/v1/responses",
        completion_window="24h",
        input_file_id="file-test-input",
        output_file_id="file-test-output" if completed else None,
        timestamps={"created_at": int(created_at), "expires_at": int(created_at) + 24 * HOUR},
        metadata={"test": "true"},
    )
    return Batch(
        key=0,
        project_id=project_id,
        account_id="",
        account="test",
        provider="test",
        id=SAMPLE_ID,
        status=status,
        registered_at=now,
        updated_at=now,
        progress_at=now,
        snapshot=seen,
        ended_at=now if status.ended else None,
    )
