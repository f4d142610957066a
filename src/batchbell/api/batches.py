"""Batches: made through the gateway, and answered in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict

from batchbell.api.answers import Answer, Metadata, Object, Second, Usage, about, one_of
from batchbell.api.fields import SPELLINGS, Request, WebhookUrl
from batchbell.api.results import Results
from batchbell.api.watches import Webhook
from batchbell.core.alarms import STALLS
from batchbell.core.model import BatchOutcome, Status


class BatchRequest(BaseModel):
    """What the provider takes, and `webhook`, which is kept here.

    `metadata.webhook_url`, or `metadata.webhookUrl`, does the same, and goes on to the provider
    with the rest. `metadata.url` is yours.
    """

    model_config = ConfigDict(extra="allow")

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    webhook: Webhook | None = None


class MetadataWebhook(Request):
    """The pair of a batch's metadata that names a webhook."""

    webhook_url: WebhookUrl

    @staticmethod
    def of(metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The pairs that name one. `url` is none of them: whoever made the batch may use it."""
        return {name: one for name, one in metadata.items() if name in SPELLINGS and name != "url"}


class BatchError(Answer, frozen=True, kw_only=True):
    """One of the provider's errors about a batch."""

    code: str | None
    message: str | None
    param: str | None
    line: Annotated[int | None, about("Of the input file, from 1.")]


class BatchErrors(Object, frozen=True, kw_only=True, tag="list"):
    data: tuple[BatchError, ...]


class RequestCounts(Answer, frozen=True, kw_only=True):
    total: int
    completed: int
    failed: int


StatusWord = Annotated[str, one_of(Status)]
ShownStatus = Annotated[str, one_of(word for word in Status if word is not Status.LOST)]
OutcomeWord = Annotated[str, one_of(BatchOutcome)]
StallCause = Annotated[str, one_of(sorted(STALLS))]


class BatchExtras(Answer, frozen=True, kw_only=True):
    """What OpenAI's Batch object has no place for. `status` is the true one: it may be `lost`."""

    status: StatusWord
    provider_status: Annotated[str | None, about("The provider's own word.")]
    provider: str
    account: str
    outcome: Annotated[OutcomeWord | None, about("What it yielded; null while it runs.")]
    lost: Annotated[
        bool,
        about("Whether the provider knows it no more: OpenAI's `status` can only say `failed`."),
    ]
    overdue: Annotated[bool, about("Whether it should have ended for some time.")]
    stalled: Annotated[tuple[StallCause, ...], about("Why somebody should look at it.")]
    reason: Annotated[
        str | None,
        about("Why it has not ended well, does not get on, or calls no webhook of its own."),
    ]
    last_progress_at: Second
    registered_at: Second
    updated_at: Second
    ended_at: Second | None
    generation: Annotated[
        int, about("Counts its lives: one that was lost and is found begins a new one.")
    ]
    expunged_at: Annotated[Second | None, about("When its payloads were removed.")]
    results_expire_at: Annotated[
        Second | None,
        about("Until when the provider keeps the results, as it says of all; null before the end."),
    ]
    results: Annotated[
        Results | None,
        about("Only where one batch is asked for, and somebody asked for its results."),
    ] = None


class Batch(Object, frozen=True, kw_only=True, tag="batch"):
    """OpenAI's Batch object, whatever the provider, and `batchbell` beside it."""

    id: str
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: Annotated[ShownStatus, about("Never `lost`: `batchbell.status` may be.")]
    output_file_id: str | None
    error_file_id: str | None
    created_at: Second
    in_progress_at: Second | None
    expires_at: Second | None
    finalizing_at: Second | None
    completed_at: Second | None
    failed_at: Second | None
    expired_at: Second | None
    cancelling_at: Second | None
    cancelled_at: Second | None
    request_counts: RequestCounts | None
    usage: Usage | None
    metadata: Metadata | None
    batchbell: BatchExtras

    @property
    def ended(self) -> bool:
        """Whether it has ended, well or not."""
        return self.batchbell.ended_at is not None
