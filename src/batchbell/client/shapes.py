"""What the server answers, as frozen types. Times are seconds since the epoch.

Fields that a newer server adds are passed over; words that it adds are kept as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

T = TypeVar("T")


class Page(Struct, Generic[T], frozen=True, kw_only=True):
    data: tuple[T, ...]
    last_id: str | None = None
    has_more: bool = False


class WatchSpec(Struct, frozen=True, omit_defaults=True):
    """What to watch, for `watch_many`; what is left out is the server's default."""

    batch_id: str
    url: str
    events: Sequence[str] | None = None
    metadata: Mapping[str, str] | None = None
    account: str | None = None
    results: str | None = None


class Watch(Struct, frozen=True, kw_only=True):
    id: str
    batch_id: str
    url: str
    events: tuple[str, ...]
    metadata: dict[str, str]
    endpoint_id: str
    dialect: str
    created_at: int
    results: str = "link"


class BatchError(Struct, frozen=True, kw_only=True):
    code: str | None = None
    message: str | None = None
    param: str | None = None
    line: int | None = None


class BatchErrors(Struct, frozen=True, kw_only=True):
    data: tuple[BatchError, ...] = ()


class RequestCounts(Struct, frozen=True, kw_only=True):
    total: int
    completed: int
    failed: int


class Tokens(Struct, frozen=True, kw_only=True):
    """What the answers of one model used; `cached_tokens` are among the input's."""

    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int


class ProviderFiles(Struct, frozen=True, kw_only=True):
    """What becomes of the files at the provider: `kept`, `due`, `deleted` or `failed`.

    `reason` says why something is still there, where it was to be deleted.
    """

    state: str
    due_at: int | None = None
    deleted_at: int | None = None
    reason: str | None = None


class Results(Struct, frozen=True, kw_only=True):
    """How far the merged results are, and what is in them."""

    state: str
    lines: int | None = None
    bytes: int | None = None
    succeeded: int | None = None
    failed: int | None = None
    not_run: int | None = None
    in_input_order: bool | None = None
    usage: dict[str, Tokens] | None = None
    notes: tuple[str, ...] | None = None
    trouble: str | None = None
    provider_files: ProviderFiles | None = None


class BatchExtras(Struct, frozen=True, kw_only=True):
    """What OpenAI's Batch has no place for."""

    status: str
    provider_status: str | None
    provider: str
    account: str
    outcome: str | None
    trouble: str | None
    registered_at: int
    updated_at: int
    ended_at: int | None
    generation: int
    expunged_at: int | None
    results: Results | None = None
    lost: bool = False
    overdue: bool = False
    stalled: tuple[str, ...] = ()
    """`unknown_status`, `overdue`, `no_progress`."""
    reason: str | None = None
    """Why it has not ended well, or does not get on."""
    last_progress_at: int | None = None


class Batch(Struct, frozen=True, kw_only=True):
    """OpenAI's Batch object. `status` never says `lost`: `batchbell.status` does."""

    id: str
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: str
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
    metadata: dict[str, Any] | None
    batchbell: BatchExtras

    @property
    def ended(self) -> bool:
        return self.batchbell.ended_at is not None


class Part(Struct, frozen=True, kw_only=True):
    """Some of the requests, and the provider's batch that they are handed in as."""

    id: str
    position: int
    round: int
    state: str
    lines: int
    bytes: int
    tokens: int
    tries: int
    batch_id: str | None
    batch_status: str | None
    trouble: str | None
    note: str | None = None


class Submission(Struct, frozen=True, kw_only=True):
    """Requests that Batchbell hands in, and tells of as one batch, under the same id."""

    id: str
    status: str
    outcome: str | None
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
    parts: tuple[Part, ...]
    created_at: int
    cancelled_at: int | None
    ended_at: int | None


class DeliveryCounts(Struct, frozen=True, kw_only=True):
    pending: int
    delivered: int
    exhausted: int
    held: int


class Event(Struct, frozen=True, kw_only=True):
    """`deliveries` is None in lists."""

    id: str
    type: str
    created_at: int
    timestamp: str
    data: dict[str, Any]
    recorded_at: int
    deliveries: DeliveryCounts | None = None


class StreamedEvent(Struct, frozen=True, kw_only=True):
    """An event as a stream tells it. `body` is exactly what a webhook carries."""

    id: str
    type: str
    body: str

    @property
    def data(self) -> dict[str, Any]:
        """What the event is about: the `data` of its body."""
        found: dict[str, Any] = msgspec.json.decode(self.body)["data"]
        return found


class Timings(Struct, frozen=True, kw_only=True):
    """Milliseconds. `first_byte_ms` counts from the begin of the call, the others do not.

    A kept connection has no `dns_ms`, `connect_ms` and `tls_ms`.
    """

    dns_ms: float | None
    connect_ms: float | None
    tls_ms: float | None
    first_byte_ms: float | None


class Attempt(Struct, frozen=True, kw_only=True):
    number: int
    result: str
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
    """`attempts` and `attempts_deleted` are None in lists."""

    id: str
    event_id: str
    event_type: str
    batch_id: str | None
    endpoint_id: str
    watch_id: str | None
    webhook_id: str
    url: str
    state: str
    in_flight: bool
    attempt_count: int
    next_attempt_at: int | None
    created_at: int
    finished_at: int | None
    last_status: int | None
    last_error: str | None
    needs_you: str | None
    attempts: tuple[Attempt, ...] | None = None
    reason: str | None = None
    """Why it waits, where it does."""
    attempts_deleted: int | None = None
    """Attempts whose records were too old to be kept."""


class Breaker(Struct, frozen=True, kw_only=True):
    open: bool
    opened_at: int | None
    next_probe_at: int | None


class Endpoint(Struct, frozen=True, kw_only=True):
    """`signing_secret` is there once, where it was made or rotated; it is not in the `repr`."""

    id: str
    name: str
    url: str
    event_types: tuple[str, ...]
    signing_secret_hint: str
    created_at: int
    updated_at: int
    description: str | None
    accounts: tuple[str, ...] | None
    metadata: dict[str, str]
    headers: dict[str, str]
    timeout_seconds: float | None
    schedule: tuple[float, ...] | None
    rate_limit: float | None
    ordered: bool
    results: str
    active_secrets: int
    implied: bool
    state: str
    state_since: int
    reason: str | None
    failures: int
    failing_since: int | None
    paused_until: int | None
    breaker: Breaker
    waiting: int | None = None
    held: int | None = None
    signing_secret: str | None = None

    def __repr__(self) -> str:
        return f"Endpoint(id={self.id!r}, name={self.name!r}, url={self.url!r})"


class EndpointTest(Struct, frozen=True, kw_only=True):
    webhook_endpoint_id: str
    event_type: str
    event_id: str
    status_code: int
    success: bool
    attempt: Attempt


class Replay(Struct, frozen=True, kw_only=True):
    """`done` of `total` were sent again so far; `skipped` are of disabled endpoints."""

    id: str
    state: str
    status: str
    endpoint_id: str | None
    event_id: str | None
    since: float | None
    until: float | None
    types: tuple[str, ...]
    as_new: bool
    pace: float
    total: int
    done: int
    skipped: int
    created_at: int
    updated_at: int
    finished_at: int | None


class ReplayCounts(Struct, frozen=True, kw_only=True):
    """What a replay would send again, and what it would leave of disabled endpoints."""

    total: int
    skipped: int


class Account(Struct, frozen=True, kw_only=True):
    """`source` is `environment` or `api`: who keeps the API key.

    `swept_at` is when a sweep last ended, `succeeded_at` when one last ended well; `unswept` says
    why it is not swept, though it should be.
    """

    id: str
    name: str
    provider: str
    base_url: str
    state: str
    trouble: str | None
    list_error: str | None
    retrieve_error: str | None
    list_stale: bool
    discover: bool
    swept_at: int | None
    source: str
    api_key_hint: str | None
    created_at: int
    succeeded_at: int | None = None
    unswept: str | None = None


class AccountTest(Struct, frozen=True, kw_only=True):
    """`error` is a class of errors such as `auth`; None where `ok`."""

    account_id: str
    ok: bool
    error: str | None
    message: str | None
    status: int | None
    latency_ms: float


class AccountDeleted(Struct, frozen=True, kw_only=True):
    """`open_batches` had not ended, and are watched no more."""

    id: str
    open_batches: int


class Key(Struct, frozen=True, kw_only=True):
    """`key` is there once, from `create_key`; it is not in the `repr`."""

    id: str
    project_id: str
    name: str
    hint: str
    created_at: int
    revoked_at: int | None
    key: str | None = None

    def __repr__(self) -> str:
        return f"Key(id={self.id!r}, name={self.name!r}, hint={self.hint!r})"


class Project(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    created_at: int


class Readiness(Struct, frozen=True, kw_only=True):
    status: str
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """What does not get on, though the server can be asked."""

    @property
    def ready(self) -> bool:
        return self.status == "ready"
