"""Submissions as they are answered."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from batchbell.core import submission as core
from batchbell.core.model import BatchOutcome, Status
from batchbell.core.submission import PartState
from batchbell.web.describing import counts_of
from batchbell.web.shapes import RequestCounts


class Part(Struct, frozen=True, kw_only=True):
    """Some of the requests, and the provider's batch that they are handed in as."""

    id: str
    position: int
    round: int
    state: PartState
    lines: int
    bytes: int
    tokens: int
    tries: int
    batch_id: str | None
    batch_status: Status | None
    trouble: str | None
    note: str | None


class Submission(Struct, frozen=True, kw_only=True):
    """Requests that we hand in, and tell of as one batch, under the same id."""

    id: str
    object: Literal["submission"] = "submission"
    status: Status
    outcome: BatchOutcome | None
    account: str
    provider: str
    endpoint: str | None
    model: str | None
    request_counts: RequestCounts | None
    usage: dict[str, Any] | None
    metadata: dict[str, str]
    retry_missing: int
    retry_max_tokens: int | None
    trouble: str | None
    parts: list[Part]
    created_at: int
    cancelled_at: int | None
    ended_at: int | None


def describe(found: core.Submission) -> Submission:
    batch = core.standing(found)
    seen = batch.snapshot or found.snapshot
    return Submission(
        id=found.id,
        status=batch.status,
        outcome=batch.outcome,
        account=batch.account,
        provider=batch.provider,
        endpoint=seen.endpoint,
        model=seen.model,
        request_counts=counts_of(seen),
        usage=None if seen.usage is None else dict(seen.usage),
        metadata=dict(seen.metadata or {}),
        retry_missing=found.retry_missing,
        retry_max_tokens=found.retry_max_tokens,
        trouble=found.trouble,
        parts=[_part(part) for part in found.parts],
        created_at=int(found.created_at),
        cancelled_at=None if found.cancelled_at is None else int(found.cancelled_at),
        ended_at=None if batch.ended_at is None else int(batch.ended_at),
    )


def _part(found: core.Part) -> Part:
    return Part(
        id=found.id,
        position=found.position,
        round=found.round,
        state=found.state,
        lines=found.lines,
        bytes=found.size,
        tokens=found.tokens,
        tries=found.tries,
        batch_id=found.batch.id if found.batch else None,
        batch_status=found.batch.status if found.batch else None,
        trouble=found.trouble,
        note=found.note,
    )
