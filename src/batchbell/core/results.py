"""The results of a batch: what somebody wants of them, and how far they are."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from batchbell.core import backoff
from batchbell.core.attachment import ResultsMode as ResultsMode  # noqa: PLC0414 - one word list
from batchbell.core.attachment import ResultsState as ResultsState  # noqa: PLC0414
from batchbell.core.errors import ProviderError, ProviderNotFound, ProviderRejected
from batchbell.core.model import Batch, BatchOutcome, Counts, Snapshot, Status

TRIES_MAX = 20
"""Over some ten hours; then somebody has to ask for the results again."""
GONE_TRIES = 8
"""How often the provider must say that it has no such file, over ten minutes and more."""
DOUBT_TRIES = 7
"""Over five minutes: then what is there is taken, where a file is late, short or cannot be had."""
EXPUNGED_AT = 0.0
"""`ended_at` of results that were removed on request."""
BEHIND_SECONDS = 60.0
"""Results that go out as a link stand behind webhooks for so long, unless somebody asks."""
AGAIN_SECONDS = 60.0
"""Whoever asks for results that were given up has them tried again, once in so long at most."""
FIRST_WAIT_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 3600.0
LINE_SHARE_BYTES = 64 * 2**20
"""How large a file may be for each request: as the longest line that is read."""
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


class Arrived(Struct, frozen=True, kw_only=True):
    """What a provider said of a file that it sent."""

    encoding: str | None = None
    content_type: str | None = None
    inside: str | None = None
    """The file is one JSON document: its lines are the elements of the first array of this name."""


class Tokens(Struct, frozen=True, kw_only=True):
    """What the answers of one model used, in tokens; `cached` ones are among the input's."""

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


class Tally(Struct, frozen=True, kw_only=True):
    """What was written: one line for every request."""

    lines: int
    succeeded: int
    failed: int
    not_run: int
    size: int
    """In bytes."""
    in_input_order: bool
    """False where the input was gone, and the provider does not keep to its order either: the lines
    then stand as its files had them."""
    usage: Mapping[str, Tokens] = field(default_factory=dict)
    """By model."""
    notes: tuple[str, ...] = ()
    """What did not add up, in plain words."""
    missing: int = 0
    """Of the lines, those that we wrote for requests of which the files say nothing."""
    surplus: int = 0
    """Of the lines, those that are left over after one for each request; they come last."""
    surplus_succeeded: int = 0
    unreadable: int = 0
    """Of the surplus, the lines that are no answers: a file that is still written may end so."""


class Results(Struct, frozen=True, kw_only=True):
    """The merged results of one batch."""

    id: str
    project_id: str
    batch_key: int
    state: ResultsState
    secret: str
    """Signs the links."""
    tries: int
    reason: str | None
    tally: Tally | None
    created_at: float
    ended_at: float | None
    asked_at: float | None = None
    """When somebody last had them tried again."""

    @property
    def name(self) -> str:
        """What they are called in the results store."""
        return f"{self.project_id}/{self.id}.jsonl"

    def is_over(self, *, now: float, keep_seconds: float) -> bool:
        """Whether their time is over, or they were expunged: the next collector deletes them."""
        return self.ended_at is not None and self.ended_at < now - keep_seconds


class Collecting(Struct, frozen=True, kw_only=True):
    """Results in a worker's hands, and the batch that they are of."""

    results: Results
    batch: Batch
    lease_token: str


def is_expunged(batch: Batch, found: Results | None) -> bool:
    """Whether results were removed with all else of the batch, and not asked for since."""
    if batch.expunged_at is None:
        return False
    return found is None or found.ended_at == EXPUNGED_AT or found.created_at < batch.expunged_at


def missing_answer(batch: Batch) -> tuple[str, str]:
    """The code and the words for a request that is in no file."""
    return NOT_RUN.get(batch.status, NEVER_RUN)


def mismatch(batch: Batch, tally: Tally) -> str | None:
    """Where the provider's own counts say something else than its files; None where they agree.

    Counts that are not whole contradict nothing: what is left out of them would read as 0.
    """
    counts = batch.snapshot.counts if batch.snapshot else None
    if counts is None or not counts.whole or counts.total == 0:
        return None
    found = counts_of(tally)
    claimed = (counts.total, counts.completed, counts.failed)
    if found == claimed:
        return None
    return "The provider counts {} requests, {} completed and {} failed;".format(
        *claimed
    ) + " its files have {}, {} and {}.".format(*found)


def next_try(error: Exception, *, tries: int, now: float, rand: float) -> float | None:
    """When to try again after a failure; None where that is of no use.

    A definite answer of the provider's API is asked for again too: a file may be there late.
    """
    gone = isinstance(error, ProviderNotFound) and tries >= GONE_TRIES
    if gone or tries >= TRIES_MAX:
        return None
    wait = backoff.exponential(
        tries, base_seconds=FIRST_WAIT_SECONDS, max_seconds=LONGEST_WAIT_SECONDS, rand=rand
    )
    asked = error.retry_after_seconds if isinstance(error, ProviderError) else None
    return now + max(wait, asked or 0.0)


def may_do_without(error: Exception, *, tries: int, is_input: bool) -> bool:
    """Whether to go on without a file that cannot be had: the input, or the error file.

    The input is worth the order only, and its owner may have deleted it: where the API itself
    says so, it is believed.
    """
    if is_input and isinstance(error, ProviderNotFound | ProviderRejected):
        return True
    return tries >= DOUBT_TRIES


def promises_output(batch: Batch) -> bool:
    """Whether the counts, or the end itself, say that there are good answers."""
    counts = _deciding(batch.snapshot, batch.status)
    return batch.status is Status.COMPLETED if counts is None else counts.completed > 0


def _deciding(seen: Snapshot | None, status: Status) -> Counts | None:
    """The counts, where they say what an end like this yielded."""
    counts = seen.counts if seen else None
    return counts if counts is not None and counts.decide(status) else None


def lacks_files(seen: Snapshot) -> bool:
    """Whether an end is shown that names no file with answers, and may have some.

    Gateways leave fields out of the rows of their lists: such an end is read by its id before it
    is accepted. A batch that failed for reasons that are shown has no answers to name.
    """
    if seen.status is None or not seen.status.ended or seen.names_answers:
        return False
    counts = _deciding(seen, seen.status)
    if counts is not None and counts.completed > 0:
        return True
    if seen.error_file_id is not None:
        return False
    return not seen.problems if counts is None else counts.failed > 0


def asks_again(seen: Snapshot, *, tries: int) -> bool:
    """Whether to read a batch by its id before its files are fetched.

    From the second try on also for an error file that was left out: some hosts have none, and put
    failed answers into the output.
    """
    if tries >= DOUBT_TRIES:
        return False
    failed = seen.counts.failed if seen.counts else 0
    lacks_errors = seen.error_file_id is None and seen.results_ref is None
    return lacks_files(seen) or (tries > 1 and failed > 0 and lacks_errors)


def awaits_files(batch: Batch, *, tries: int) -> bool:
    """Whether a file is promised that the provider has not named yet, and may name late."""
    seen = batch.snapshot
    if tries >= DOUBT_TRIES or (seen and seen.names_answers):
        return False
    counted = _deciding(seen, batch.status) is not None
    named = seen is not None and seen.error_file_id is not None
    return promises_output(batch) and (counted or not named)


def shortfall(batch: Batch, tally: Tally, *, tries: int) -> str | None:
    """Why to ask again for files that hold fewer answers than the provider counts, for a time."""
    counts = batch.snapshot.counts if batch.snapshot else None
    if counts is None or not counts.whole or tries >= DOUBT_TRIES:
        return None
    answers = tally.lines - tally.missing - tally.unreadable
    promised = counts.completed + counts.failed
    if answers >= promised:
        return None
    return f"The provider counts {promised} answers; its files have {answers} so far."


def file_max_bytes(batch: Batch, most: int) -> int:
    """How large a file of this batch may be, given the most for any."""
    counts = batch.snapshot.counts if batch.snapshot else None
    if counts is None or counts.total <= 0:
        return most
    return min(most, counts.total * LINE_SHARE_BYTES)


def counts_of(tally: Tally) -> tuple[int, int, int]:
    """Requests by the files: all, completed and failed; those that were not run are neither."""
    requests, succeeded = tally.lines - tally.surplus, tally.succeeded - tally.surplus_succeeded
    return requests, succeeded, requests - succeeded - tally.not_run


def with_model(seen: Snapshot | None, tally: Tally) -> Snapshot | None:
    """The batch with the model of its answers, where it names none and they are all of one."""
    if seen is None or seen.model is not None or len(tally.usage) != 1:
        return seen
    return replace(seen, model=next(iter(tally.usage)) or None)


def outcome(tally: Tally) -> BatchOutcome:
    """What the files hold: it counts more than what the provider counted."""
    requests = tally.lines - tally.surplus
    succeeded = tally.succeeded - tally.surplus_succeeded
    if requests <= 0:  # all is left over: the input has other names
        requests, succeeded = tally.lines, tally.succeeded
    if succeeded == 0:
        return BatchOutcome.NONE
    return BatchOutcome.SUCCEEDED if succeeded >= requests else BatchOutcome.PARTIAL
