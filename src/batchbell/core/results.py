"""The results of a batch: what somebody wants of them, and how far they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from batchbell.core import backoff
from batchbell.core.errors import ProviderError, ProviderNotFound, ProviderRejected
from batchbell.core.model import Batch, Status
from batchbell.core.travelling import ResultsMode as ResultsMode  # noqa: PLC0414 - one word list
from batchbell.core.travelling import ResultsState as ResultsState  # noqa: PLC0414

TRIES_MAX = 20
"""Over some ten hours; then somebody has to ask for the results again."""
FIRST_WAIT_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 3600.0
INLINE_WAIT_SECONDS = 900.0
"""A webhook that is to carry the lines goes out with the link when they take longer."""

NOT_RUN: Mapping[Status, tuple[str, str]] = {
    Status.EXPIRED: ("batch_expired", "This request could not be executed before the batch ended."),
    Status.CANCELLED: (
        "batch_cancelled",
        "This request was not executed: the batch was cancelled.",
    ),
}
"""What is said of requests that the provider left without an answer."""
NEVER_RUN = ("not_run", "The provider gave no answer to this request.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What the answers of one model used, in tokens; `cached` ones are among the input's."""

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What was written: one line for every request."""

    lines: int
    succeeded: int
    failed: int
    not_run: int
    size: int
    """In bytes."""
    in_input_order: bool
    """False where the input was gone: the lines then stand as the provider's files had them."""
    usage: Mapping[str, Tokens] = field(default_factory=dict)
    """By model."""
    notes: tuple[str, ...] = ()
    """What did not add up, in plain words."""
    surplus: int = 0
    """Of the lines, those that are left over after one for each request; they come last."""
    surplus_succeeded: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The merged results of one batch."""

    id: str
    project_id: str
    batch_key: int
    state: ResultsState
    secret: str
    """Signs the links."""
    tries: int
    trouble: str | None
    tally: Tally | None
    created_at: float
    ended_at: float | None

    @property
    def name(self) -> str:
        """What they are called on the shelf."""
        return f"{self.project_id}/{self.id}.jsonl"

    def is_over(self, *, now: float, keep_seconds: float) -> bool:
        """Whether their time is over, or they were expunged: the next collector deletes them."""
        return self.ended_at is not None and self.ended_at < now - keep_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Collecting:
    """Results in a worker's hands, and the batch that they are of."""

    results: Results
    batch: Batch
    lease_token: str


def missing_answer(batch: Batch) -> tuple[str, str]:
    """The code and the words for a request that is in no file."""
    return NOT_RUN.get(batch.status, NEVER_RUN)


def mismatch(batch: Batch, tally: Tally) -> str | None:
    """Where the provider's own counts say something else than its files; None where they agree."""
    counts = batch.snapshot.counts if batch.snapshot else None
    if counts is None or counts.total == 0:
        return None
    requests, succeeded = tally.lines - tally.surplus, tally.succeeded - tally.surplus_succeeded
    found = (requests, succeeded, requests - succeeded - tally.not_run)
    told = (counts.total, counts.completed, counts.failed)
    if found == told:
        return None
    return "The provider counts {} requests, {} completed and {} failed;".format(
        *told
    ) + " its files have {}, {} and {}.".format(*found)


def next_try(error: Exception, *, tries: int, now: float, rand: float) -> float | None:
    """When to try again after trouble; None where that is of no use."""
    if isinstance(error, ProviderNotFound | ProviderRejected) or tries >= TRIES_MAX:
        return None
    wait = backoff.exponential(
        tries, base_seconds=FIRST_WAIT_SECONDS, max_seconds=LONGEST_WAIT_SECONDS, rand=rand
    )
    asked = error.retry_after_seconds if isinstance(error, ProviderError) else None
    return now + max(wait, asked or 0.0)
