"""From what happened to the exact bytes that are sent.

An event's canonical body is written once, when it happens: OpenAI's event shape and more beside
it, so that OpenAI's SDKs unwrap it. What only one watch asked for is added at the moment of
sending, without reading the body again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from batchbell.core.model import Batch, Counts, Dialect, EventType, Snapshot, Status

PROBLEMS_MAX = 10
BODY_MAX_BYTES = 20_000
"""Standard Webhooks asks for small payloads; what does not fit is dropped, and named."""
DROPPABLE = ("metadata", "errors", "usage")

RETRYABLE_CODES = frozenset({"token_limit_exceeded"})
"""Failures of the moment: the same input passes when other batches of the model have ended."""

NOT_FOUND = {
    "code": "batch_not_found",
    "message": "The provider knows no batch of this id for this account (404, confirmed twice).",
}


def compact(value: Any) -> str:
    """JSON as it is sent: ASCII, no spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)


def event_body(event_id: str, type_: EventType, batch: Batch, *, occurred_at: float) -> str:
    """The canonical body of an event about `batch` as it now is."""
    event = {
        "id": event_id,
        "object": "event",
        "type": type_.value,
        "created_at": int(occurred_at),
        "timestamp": datetime.fromtimestamp(int(occurred_at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "data": describe(batch),
    }
    return _fit(event)


def _fit(event: dict[str, Any]) -> str:
    body = compact(event)
    omitted: list[str] = []
    for part in DROPPABLE:
        if len(body) <= BODY_MAX_BYTES:
            break
        if event["data"].pop(part, None) is not None:
            omitted.append(part)
            event["data"]["omitted"] = omitted
            body = compact(event)
    return body


def describe(batch: Batch) -> dict[str, Any]:
    """What a webhook says of a batch, under `data`."""
    seen = batch.snapshot or Snapshot(id=batch.id, provider_status="", status=None)
    data: dict[str, Any] = {
        "id": batch.id,
        "provider": batch.provider,
        "account": batch.account,
        "status": batch.status.value,
        "outcome": batch.outcome.value if batch.outcome else None,
        "request_counts": counts_object(seen.counts),
        "endpoint": seen.endpoint,
        "model": seen.model,
        "input_file_id": seen.input_file_id,
        "output_file_id": seen.output_file_id,
        "error_file_id": seen.error_file_id,
        "errors": problems(seen, limit=PROBLEMS_MAX),
        "usage": seen.usage,
        "metadata": dict(seen.metadata or {}),
    }
    if batch.status is Status.LOST:
        data["error"] = NOT_FOUND
    if batch.status is Status.FAILED:
        data["retryable"] = any(p.code in RETRYABLE_CODES for p in seen.problems)
    return data


def counts_object(counts: Counts | None) -> dict[str, int] | None:
    """Counts as OpenAI's `request_counts`."""
    if counts is None:
        return None
    return {"total": counts.total, "completed": counts.completed, "failed": counts.failed}


def problems(seen: Snapshot, *, limit: int | None = None) -> list[dict[str, Any]]:
    """The provider's own errors, the first `limit` of them, with their line numbers."""
    return [
        {"code": p.code, "message": p.message, "param": p.param, "line": p.line}
        for p in seen.problems[:limit]
    ]


def dressed(
    body: str,
    *,
    dialect: Dialect,
    watch_id: str | None,
    watch_metadata: str | None,
) -> bytes:
    """The bytes for one watch: its own fields in front of the event's, the rest untouched.

    `watch_metadata` is JSON text as the watch gave it.
    """
    front = ""
    if dialect is Dialect.AWAITER:
        data = json.loads(body)["data"]
        front += f'"batchId":{compact(data["id"])},"status":{compact(_plain_status(data))},'
    if watch_id is not None and watch_metadata not in (None, "{}"):
        front += f'"watch":{{"id":{compact(watch_id)},"metadata":{watch_metadata}}},'
    return ("{" + front + body[1:]).encode("ascii")


def _plain_status(data: Mapping[str, Any]) -> str:
    """The status for receivers that know the four ends only: what is lost has failed."""
    return "failed" if data["status"] == Status.LOST else data["status"]
