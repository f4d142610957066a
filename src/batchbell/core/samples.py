"""Batches that never were, for test events."""

from __future__ import annotations

from batchbell.core.lifecycle import EVENT_OF
from batchbell.core.model import Batch, Counts, EventType, Snapshot, Status

STATUS_OF = {type_: status for status, type_ in EVENT_OF.items()}
SAMPLE_ID = "batch_test"


def sample_batch(type_: EventType, *, project_id: str, now: float) -> Batch:
    """A batch to which this has just happened. Its metadata says that it is a test."""
    status = STATUS_OF[type_]
    completed = 3 if status is Status.COMPLETED else 0
    seen = Snapshot(
        id=SAMPLE_ID,
        provider_status=status.value,
        status=status,
        counts=Counts(total=3, completed=completed, failed=0),
        endpoint="/v1/responses",
        completion_window="24h",
        input_file_id="file-test-input",
        output_file_id="file-test-output" if completed else None,
        timestamps={"created_at": int(now)},
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
        snapshot=seen,
        ended_at=now if status.ended else None,
    )
