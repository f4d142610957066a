"""Values to start a test from: only what the test is about needs to be said."""

from __future__ import annotations

from typing import Any

from batchbell.core.model import Batch, Endpoint, Snapshot, Status

NOW = 1_719_168_000.0
"""2024-06-23T18:40:00Z."""


def a_batch(status: Status = Status.IN_PROGRESS, **changes: Any) -> Batch:
    values: dict[str, Any] = {
        "key": 1,
        "project_id": "default",
        "account_id": "acc_1",
        "account": "openai",
        "provider": "openai",
        "id": "batch_abc",
        "status": status,
        "registered_at": NOW - 600,
        "updated_at": NOW - 300,
        "ended_at": NOW - 300 if status.ended else None,
    }
    return Batch(**(values | changes))


def a_snapshot(status: Status | None = Status.IN_PROGRESS, **changes: Any) -> Snapshot:
    values: dict[str, Any] = {
        "id": "batch_abc",
        "provider_status": status.value if status else "dreaming",
        "status": status,
    }
    return Snapshot(**(values | changes))


def an_endpoint(**changes: Any) -> Endpoint:
    values: dict[str, Any] = {
        "id": "ep_1",
        "project_id": "default",
        "url": "https://receiver.example/hook",
        "secrets": ("whsec_x",),
    }
    return Endpoint(**(values | changes))
