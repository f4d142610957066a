"""Submissions: requests of any number, sent as the batches that they need."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from batchbell.api.answers import Answer, Metadata, Object, Second, Usage, about, one_of
from batchbell.api.batches import OutcomeWord, RequestCounts, StatusWord
from batchbell.api.fields import (
    NAME_MAX,
    PAIRS_MAX,
    BatchEvents,
    Conflict,
    Pairs,
    Request,
    Results,
    Shaped,
    Text,
    WebhookUrl,
    one_target,
)
from batchbell.core.submission import RETRY_MISSING_MAX, RETRY_TOKENS_MAX, TAG, PartState

MODEL_MAX = 256


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = BeforeValidator(_whole)
"""JSON has one kind of numbers: 2.0 is whole, too."""
Path = Annotated[
    str,
    Field(min_length=1, max_length=NAME_MAX, examples=["/v1/responses"]),
    Shaped(r"^/[!-~]+$", "must be a path such as /v1/responses."),
]


class SubmissionOptions(Request):
    """What is said of a submission beside its requests."""

    endpoint: Path | None = None
    model: Annotated[Text, Field(max_length=MODEL_MAX)] | None = None
    account: Text | None = None
    url: WebhookUrl | None = None
    endpoint_id: Text | None = None
    events: BatchEvents | None = None
    metadata: Pairs | None = None
    results: Results | None = None
    retry_missing: Annotated[int, Field(ge=0, le=RETRY_MISSING_MAX), Whole] | None = None
    retry_max_tokens: Annotated[int, Field(ge=0, le=RETRY_TOKENS_MAX), Whole] | None = None

    @classmethod
    def conflicts(cls, sound: Mapping[str, Any], spoilt: Collection[str]) -> Iterator[Conflict]:
        yield from one_target(sound)
        if len({*(sound.get("metadata") or ()), TAG}) > PAIRS_MAX:
            yield Conflict("metadata", f"may have {PAIRS_MAX - 1} pairs: one is ours.")


class SubmissionRequest(SubmissionOptions):
    """The other way in: a body of JSON lines, or a form with a `file`, and these as parameters."""

    requests: Annotated[list[dict[str, Any]], Field(min_length=1)]


class Part(Answer, frozen=True, kw_only=True):
    """Some of the requests, and the provider's batch that they are submitted as."""

    id: str
    position: int
    round: Annotated[int, about("From 2 on: requests that are sent again.")]
    state: Annotated[str, one_of(PartState)]
    lines: int
    bytes: int
    tokens: Annotated[int, about("By estimate.")]
    tries: int
    batch_id: str | None
    batch_status: StatusWord | None
    reason: str | None
    note: Annotated[str | None, about("What was done otherwise than asked.")]


class Submission(Object, frozen=True, kw_only=True, tag="submission"):
    """Requests that are submitted as batches, and reported as one batch under the same id."""

    id: str
    status: StatusWord
    outcome: OutcomeWord | None
    account: str
    provider: str
    endpoint: str | None
    model: str | None
    request_counts: RequestCounts | None
    usage: Usage | None
    metadata: Metadata
    retry_missing: int
    retry_max_tokens: int | None
    reason: Annotated[str | None, about("What it waits for, where the provider cannot be called.")]
    parts: tuple[Part, ...]
    created_at: Second
    cancelled_at: Second | None
    ended_at: Second | None
