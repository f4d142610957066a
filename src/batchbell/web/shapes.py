"""What is answered, as types: the schemas of the OpenAPI document.

Times are whole seconds since the epoch, as OpenAI's are, unless the name says otherwise.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from msgspec import UNSET, Struct, UnsetType

from batchbell.core.attachment import ResultsMode
from batchbell.core.model import (
    BatchOutcome,
    DeliveryState,
    Dialect,
    EventType,
    Status,
)
from batchbell.core.replay import ReplayState, ReplayStatus
from batchbell.web.result_shapes import Results

T = TypeVar("T")

OpenAIStatus = Literal[
    "validating",
    "in_progress",
    "finalizing",
    "cancelling",
    "completed",
    "failed",
    "expired",
    "cancelled",
]


class Problem(Struct, frozen=True, kw_only=True):
    message: str
    param: str | None
    code: str
    index: int | None
    line: int | UnsetType = UNSET


class Error(Struct, frozen=True, kw_only=True):
    message: str
    type: str
    param: str | None
    code: str
    problems: list[Problem] | UnsetType = UNSET


class ErrorBody(Struct, frozen=True, kw_only=True):
    """How every error is answered."""

    error: Error


class Page(Struct, Generic[T], frozen=True, kw_only=True):
    """A page of a list: ask for the next one with `after` set to `last_id`."""

    object: Literal["list"] = "list"
    data: list[T]
    first_id: str | None
    last_id: str | None
    has_more: bool


class AwaiterAnswer(Struct, frozen=True, kw_only=True, rename={"batch_id": "batchId"}):
    message: str
    batch_id: str


class Watch(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["watch"] = "watch"
    batch_id: str
    url: str
    events: list[EventType]
    metadata: dict[str, str]
    endpoint_id: str
    dialect: Dialect
    created_at: int
    results: ResultsMode


class WatchList(Struct, frozen=True, kw_only=True):
    """The watches that answer a list, in its order; `created` counts those that are new."""

    object: Literal["list"] = "list"
    data: list[Watch]
    created: int


class Deleted(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["watch.deleted", "key.deleted"]
    deleted: bool = True


class BatchError(Struct, frozen=True, kw_only=True):
    code: str | None
    message: str | None
    param: str | None
    line: int | None


class BatchErrors(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[BatchError]


class RequestCounts(Struct, frozen=True, kw_only=True):
    total: int
    completed: int
    failed: int


StallCause = Literal["unknown_status", "overdue", "no_progress"]


class BatchExtras(Struct, frozen=True, kw_only=True):
    """What OpenAI's Batch object has no place for. `status` is the true one: it may be `lost`."""

    status: Status
    provider_status: str | None
    provider: str
    account: str
    outcome: BatchOutcome | None
    lost: bool
    """Whether the provider knows it no more: OpenAI's `status` can only say `failed`."""
    overdue: bool
    stalled: list[StallCause]
    reason: str | None
    """Why it has not ended well, or does not get on, in a sentence."""
    last_progress_at: int
    trouble: str | None
    registered_at: int
    updated_at: int
    ended_at: int | None
    generation: int
    expunged_at: int | None
    results: Results | UnsetType = UNSET
    """Only where one batch is asked for, and somebody wanted its results."""


class Batch(Struct, frozen=True, kw_only=True):
    """OpenAI's Batch object, whatever the provider, and `batchbell` beside it."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: OpenAIStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts | None
    usage: dict[str, Any] | None
    metadata: dict[str, str] | None
    batchbell: BatchExtras


class DeliveriesSummary(Struct, frozen=True, kw_only=True):
    """How many deliveries of the event are in which state."""

    pending: int
    delivered: int
    exhausted: int
    held: int


class Event(Struct, frozen=True, kw_only=True):
    """The body that is sent, and when it was written down. Lists leave `deliveries` out."""

    id: str
    object: Literal["event"] = "event"
    type: EventType
    created_at: int
    timestamp: str
    data: dict[str, Any]
    recorded_at: int
    deliveries: DeliveriesSummary | UnsetType = UNSET


class Timings(Struct, frozen=True, kw_only=True):
    """Milliseconds. A kept connection has no `dns_ms`, `connect_ms` and `tls_ms`.

    `first_byte_ms` counts from the begin of the call; the others are each stage alone.
    """

    dns_ms: float | None
    connect_ms: float | None
    tls_ms: float | None
    first_byte_ms: float | None


class Attempt(Struct, frozen=True, kw_only=True):
    """One HTTP try. `started_at` is exact, in seconds with a fraction.

    Values of `request_headers` that may be secret are `***`.
    """

    number: int
    result: Literal["delivered", "failed", "unknown"]
    explanation: str | None
    status: int | None
    fault: str | None
    detail: str | None
    location: str | None
    remote_address: str | None
    request_headers: dict[str, str]
    response_headers: dict[str, str]
    response_body: str | None
    started_at: float | None
    duration_ms: float | None
    timings: Timings | None


class Delivery(Struct, frozen=True, kw_only=True):
    """One event for one endpoint. Lists leave `attempts` and `attempts_deleted` out."""

    id: str
    object: Literal["delivery"] = "delivery"
    event_id: str
    event_type: EventType
    batch_id: str | None
    endpoint_id: str
    watch_id: str | None
    webhook_id: str
    url: str
    state: DeliveryState
    in_flight: bool
    attempt_count: int
    next_attempt_at: int | None
    created_at: int
    finished_at: int | None
    last_status: int | None
    last_error: str | None
    needs_you: str | None
    reason: str | None
    """Why it waits, where it does."""
    attempts: list[Attempt] | UnsetType = UNSET
    attempts_deleted: int | UnsetType = UNSET


class Key(Struct, frozen=True, kw_only=True):
    """`key` is there once, in the answer that made it."""

    id: str
    object: Literal["key"] = "key"
    project_id: str
    name: str
    hint: str
    created_at: int
    revoked_at: int | None
    key: str | UnsetType = UNSET


class Project(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["project"] = "project"
    name: str
    created_at: int


class WebhookSecret(Struct, frozen=True, kw_only=True):
    object: Literal["webhook_secret"] = "webhook_secret"
    secret: str


class Health(Struct, frozen=True, kw_only=True):
    status: Literal["ok"] = "ok"


class Readiness(Struct, frozen=True, kw_only=True):
    """`warnings` say what does not get on, though the server can be asked: they are for people and
    alerts, and no reason to send requests elsewhere."""

    status: Literal["ready", "not_ready"]
    reasons: list[str]
    warnings: list[str]


class Index(Struct, frozen=True, kw_only=True):
    name: Literal["batchbell"] = "batchbell"
    version: str
    docs: str
    openapi: str


class Replay(Struct, frozen=True, kw_only=True):
    """A job that sends many deliveries again; `total` was counted when it was made."""

    id: str
    object: Literal["replay"] = "replay"
    state: ReplayState
    status: ReplayStatus
    endpoint_id: str | None
    event_id: str | None
    since: float | None
    until: float | None
    types: list[EventType]
    as_new: bool
    pace: float
    total: int
    done: int
    skipped: int
    created_at: int
    updated_at: int
    finished_at: int | None


class ReplayCounts(Struct, frozen=True, kw_only=True):
    """What a replay would do. `skipped` are those of disabled endpoints."""

    object: Literal["replay.dry_run"] = "replay.dry_run"
    total: int
    skipped: int
