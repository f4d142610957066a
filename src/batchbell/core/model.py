"""The words of the house, as types. Frozen: a change is a new value, made by `structs.replace`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cached_property
from typing import Any

from msgspec import Struct, field
from msgspec.structs import astuple

from batchbell.core.account import DEFAULT_PROJECT as DEFAULT_PROJECT  # noqa: PLC0414
from batchbell.core.account import Account as Account  # noqa: PLC0414
from batchbell.core.account import AccountState as AccountState  # noqa: PLC0414
from batchbell.core.attachment import Attachment, ResultsMode
from batchbell.core.endpoint import Endpoint as Endpoint  # noqa: PLC0414 - every word is here
from batchbell.core.endpoint import EndpointState as EndpointState  # noqa: PLC0414
from batchbell.core.ids import ID_PATTERN as ID_PATTERN  # noqa: PLC0414
from batchbell.core.ids import MAX_ID_LENGTH as MAX_ID_LENGTH  # noqa: PLC0414
from batchbell.core.ids import NAME_PATTERN as NAME_PATTERN  # noqa: PLC0414
from batchbell.core.ids import new_id as new_id  # noqa: PLC0414
from batchbell.core.limits import BatchKind as BatchKind  # noqa: PLC0414
from batchbell.core.outcome import Fault as Fault  # noqa: PLC0414
from batchbell.core.outcome import Outcome as Outcome  # noqa: PLC0414


class Status(StrEnum):
    """Where a batch stands. A dialect puts its own words into these; `lost` is ours."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def ended(self) -> bool:
        return self in ENDED


ENDED = frozenset({Status.COMPLETED, Status.FAILED, Status.EXPIRED, Status.CANCELLED, Status.LOST})


class BatchOutcome(StrEnum):
    """What an ended batch yielded, judged by its counts and never by its status alone."""

    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    NONE = "none"


class Alarm(StrEnum):
    """Why somebody should look at a batch that has not ended. See `alarms`."""

    UNKNOWN_STATUS = "unknown_status"
    OVERDUE = "overdue"
    NO_PROGRESS = "no_progress"
    EXPIRING_SOON = "expiring_soon"


class EventType(StrEnum):
    """What can happen. The four ends are the default; the others are opt-in."""

    COMPLETED = "batch.completed"
    FAILED = "batch.failed"
    EXPIRED = "batch.expired"
    CANCELLED = "batch.cancelled"
    IN_PROGRESS = "batch.in_progress"
    FINALIZING = "batch.finalizing"
    LOST = "batch.lost"
    RESULTS_READY = "batch.results_ready"
    STALLED = "batch.stalled"
    EXPIRING_SOON = "batch.expiring_soon"
    ENDPOINT_FAILING = "endpoint.failing"
    ENDPOINT_DISABLED = "endpoint.disabled"
    ENDPOINT_RECOVERED = "endpoint.recovered"
    ACCOUNT_UNREACHABLE = "account.unreachable"
    DELIVERY_EXHAUSTED = "delivery.exhausted"
    PING = "ping"

    @property
    def of_batch(self) -> bool:
        """Whether it happens to a batch. All else is a notice, which no watch can ask for."""
        return self.startswith("batch.")


DEFAULT_EVENTS = (
    EventType.COMPLETED,
    EventType.FAILED,
    EventType.EXPIRED,
    EventType.CANCELLED,
)


class Counts(Struct, frozen=True, kw_only=True):
    """Requests of a batch: how many there are, and how many ended which way."""

    total: int
    completed: int
    failed: int
    whole: bool = True
    """Whether the provider gave all three, and they agree. Others are shown and decide nothing."""

    def decide(self, status: Status, *, ours: bool = False) -> bool:
        """Whether they say what a batch that ended like this yielded.

        Hosts fill them late, or never: of what `completed` there, every request has ended some
        way. Of a submission, which we count ourselves (`ours`), some may never have run.
        """
        if not self.whole or self.total == 0:
            return False
        done = self.completed + self.failed
        late = status is Status.COMPLETED and not ours and done < self.total
        return done <= self.total and not late


class BatchProblem(Struct, frozen=True, kw_only=True):
    """One of the provider's own errors about a batch; `line` counts the input file from 1."""

    code: str | None
    message: str | None
    param: str | None = None
    line: int | None = None


BETWEEN = ","
"""Between the ids in a reference to several files. No dialect that writes such has it in an id."""


class Snapshot(Struct, frozen=True, kw_only=True, dict=True):
    """A batch as its provider describes it at one moment, in one shape for all providers.

    `status` is None when the provider's word is unknown: the batch is watched on and the raw
    word is shown. `timestamps` maps names such as `created_at` to epoch seconds.
    """

    id: str
    provider_status: str
    status: Status | None
    counts: Counts | None = None
    endpoint: str | None = None
    model: str | None = None
    completion_window: str | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    timestamps: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[BatchProblem, ...] = ()
    usage: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] | None = None
    parts: tuple[str, ...] = ()
    """Of a submission: the provider's batches."""
    results_ref: str | None = None
    """Where the results are, for a provider that leaves no output and error file. Only its dialect
    reads what is in it."""
    runs_on: bool = False
    """Whether the provider lets it run on after `expires_at`, until it is done or cancelled."""

    @property
    def created_at(self) -> int | None:
        return self.timestamps.get("created_at")

    @property
    def answers(self) -> tuple[str, ...]:
        """What the provider has named that holds answers, as references for its dialect."""
        refs = (self.output_file_id, self.results_ref, self.error_file_id)
        return tuple(ref for ref in refs if ref)

    @property
    def names_answers(self) -> bool:
        """Whether it says where good answers are."""
        return self.output_file_id is not None or self.results_ref is not None

    @cached_property
    def fingerprint(self) -> str:
        """Equal for two snapshots exactly when nothing that we keep has changed. Made once.

        Our reading of the status counts too: a new version may understand the same raw word.
        """
        text = _encoded(astuple(self))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _values(value: Any) -> Any:
    """A struct as the list of its values; whatever else JSON does not know as text."""
    if isinstance(value, Struct):
        return astuple(value)
    return dict(value) if isinstance(value, Mapping) else str(value)


_encoded = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), default=_values, check_circular=False
).encode


class Missing(Struct, frozen=True):
    """The API itself says that it has nothing of this id; `reason` are its words."""

    id: str
    reason: str | None = None


class Doubtful(Struct, frozen=True):
    """An answer about this id that proves nothing.

    `there` where it shows at least that there is such a batch: a row that makes no sense.
    """

    id: str
    reason: str
    there: bool = False


Sighting = Snapshot | Missing | Doubtful


class StatusChange(Struct, frozen=True, kw_only=True):
    """When we first saw a batch in a status."""

    at: float
    status: Status
    provider_status: str | None
    """The provider's own word; None where it was not the provider that said so."""


HISTORY_MOST = 50
"""Changes that are kept of a batch: the last ones."""


class Batch(Struct, frozen=True, kw_only=True):
    """A provider's batch job that we know of. `key` is ours, `id` is the provider's."""

    key: int
    project_id: str
    account_id: str
    account: str
    """The account's name."""
    provider: str
    id: str
    status: Status
    registered_at: float
    updated_at: float
    snapshot: Snapshot | None = None
    ended_at: float | None = None
    generation: int = 1
    """Counts the lives of a batch: one that was lost and is found again begins a new one."""
    missing_since: float | None = None
    check_at: float = 0.0
    """Not looked at before this time: what is missing waits here, and so does what is in doubt."""
    doubts: int = 0
    """Answers in a row that showed nothing of it that makes sense."""
    look_error: str | None = None
    expunged_at: float | None = None
    """When its payloads were removed; those of a new life are there again."""
    webhook_refused: str | None = None
    """Why the `webhook_url` in its metadata, with which it was found, is not called."""
    kind: BatchKind = BatchKind.SINGLE
    merged_outcome: BatchOutcome | None = None
    """What its files hold, once they are merged. A new life begins without."""
    progress_at: float = 0.0
    """When the status or the counts last changed, or the batch was first known."""
    alarm_at: float = 0.0
    """When it is next looked at for alarms."""
    alarms: frozenset[Alarm] = frozenset()
    """Those that have rung in this life."""
    account_reason: str | None = None
    """Why sweeps of its account fail, if they do."""
    history: tuple[StatusChange, ...] = ()
    """The statuses that it was seen in, the oldest first."""

    @property
    def reason(self) -> str | None:
        """Why nothing is known of it, or nothing new: what the last look met."""
        never_seen = self.snapshot is None and not self.status.ended
        return self.look_error or (self.account_reason if never_seen else None)

    @property
    def outcome(self) -> BatchOutcome | None:
        """None while the batch runs, and where its counts do not say.

        By what its files hold once they are merged, else by its counts.
        """
        if not self.status.ended:
            return None
        if self.merged_outcome is not None:
            return self.merged_outcome
        counts = self.snapshot.counts if self.snapshot else None
        return outcome_of(counts, self.status, ours=self.kind is BatchKind.JOINED)


def outcome_of(counts: Counts | None, status: Status, *, ours: bool = False) -> BatchOutcome | None:
    """What the counts say; None where they are not whole. Of what never ran nothing is there."""
    if counts is None or not counts.decide(status, ours=ours):
        return BatchOutcome.NONE if status in (Status.FAILED, Status.LOST) else None
    if counts.completed == 0:
        return BatchOutcome.NONE
    return BatchOutcome.SUCCEEDED if counts.completed >= counts.total else BatchOutcome.PARTIAL


class Dialect(StrEnum):
    """How a watch was made, and so what its receiver expects in the body."""

    WATCH = "watch"
    AWAITER = "awaiter"
    """Made through `/batch-awaiter`: `batchId` and `status` stand at the top of the body."""


class Watch(Struct, frozen=True, kw_only=True):
    """Who wants to hear of a batch, of what, and with which words of their own."""

    id: str
    project_id: str
    batch_key: int
    batch_id: str
    endpoint_id: str
    url: str
    dialect: Dialect
    events: tuple[EventType, ...]
    metadata: Mapping[str, str]
    created_at: float
    results: ResultsMode = ResultsMode.LINK


class Event(Struct, frozen=True, kw_only=True):
    """Something that happened: to a batch, or said by a notice. `body` is its canonical JSON."""

    id: str
    project_id: str
    batch_id: str | None
    type: EventType
    created_at: float
    """When it happened: for a batch by the provider's clock, where it tells."""
    recorded_at: float
    body: str


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    EXHAUSTED = "exhausted"
    HELD = "held"


class Gate(Struct, frozen=True, kw_only=True):
    """What of an endpoint may keep its deliveries waiting."""

    state: EndpointState
    reason: str | None
    paused_until: float | None
    opened_at: float | None
    probe_at: float | None
    rate_limit: float | None
    rate_at: float | None
    """When it may be called next, where its rate is limited."""
    first_id: str | None
    """Of one that wants order: the delivery that comes first."""


class Delivery(Struct, frozen=True, kw_only=True):
    """One event for one endpoint. While a worker holds it, `lease_token` is set."""

    id: str
    project_id: str
    event_id: str
    event_type: EventType
    batch_id: str | None
    endpoint_id: str
    watch_id: str | None
    url: str
    state: DeliveryState
    attempts: int
    due_at: float | None
    created_at: float
    finished_at: float | None
    last_status: int | None
    last_error: str | None
    needs_you: str | None
    """What only the owner of the endpoint can mend, after a failure that waiting rarely cures."""
    lease_token: str | None
    message_id: str | None = None
    """What it is sent as, where a replay asked for another id than the event's."""
    results: ResultsMode = ResultsMode.LINK
    gate: Gate | None = None
    """How its endpoint stands, where that was read with it."""


class Claimed(Struct, frozen=True, kw_only=True):
    """A delivery in a worker's hands: all that is needed to sign and send it once."""

    id: str
    endpoint_id: str
    event_id: str
    attempt: int
    """Counts from 1; this try included."""
    first_attempt_base: int
    """Attempts spent before the last resend: the schedule starts over there."""
    first_due_at: float
    """When it was first to be sent, or was last sent again."""
    occurred_at: float
    """When what the event tells of happened."""
    event_body: str
    dialect: Dialect
    watch_id: str | None
    watch_metadata: str | None
    lease_token: str
    lease_until: float
    message_id: str | None = None
    """What it is sent as, where that is not the event's id."""
    results: ResultsMode = ResultsMode.LINK
    attachment: Attachment | None = None
    """The results that travel with it."""
    ends: bool = False
    """Its watch was deleted while somebody sent it: no further attempt is made."""

    @property
    def carries_lines(self) -> bool:
        """Whether lines of results are to be read and to travel with it."""
        wanted = self.results is ResultsMode.INLINE
        return wanted and self.attachment is not None and self.attachment.has_lines

    @property
    def life_attempt(self) -> int:
        """Counts from 1 again after a resend."""
        return self.attempt - self.first_attempt_base

    @property
    def is_retry(self) -> bool:
        return self.life_attempt > 1


class Attempt(Struct, frozen=True, kw_only=True):
    """One recorded try of a delivery. `outcome` is None where a crash hid it."""

    delivery_id: str
    number: int
    outcome: Outcome | None


Mint = Callable[[str], str]
"""Makes a new id for a prefix: chance and time, passed in as one argument."""
