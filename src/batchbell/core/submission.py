"""Submissions: requests that we hand in as batches, and tell of as one.

A submission is a batch of ours, with its own id, status, events and results. Its parts are the
provider's batches. `sighting` is what its parts make of it; the worker only carries out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from batchbell.core import backoff, governor, lifecycle
from batchbell.core.line_numbers import Runs, number_at
from batchbell.core.model import Batch, BatchProblem, Counts, Snapshot, Status
from batchbell.core.results import EXPUNGED_AT, Results, ResultsState

RETRY_MISSING_MAX = 10
RETRY_TOKENS_MAX = 10**15
"""More than anybody can pay for, and less than a column holds."""
REFUSALS_MAX = 30
"""How often a part is handed in that there was no room for: over some 24 hours."""
REFUSED_SECONDS = 60.0
REFUSED_MOST_SECONDS = 3600.0
TROUBLE_SECONDS = 5.0
TROUBLE_MOST_SECONDS = 600.0
DEATHS_MAX = 5
"""Work that kills the process which does it, after so many failures in a row, is given up."""
REQUESTS_ENDING = ".requests.jsonl"
TAG = "batchbell_part"
"""Under which a part's tag stands in the provider's metadata: by it a lost answer is found."""
BEGUN_STAMPS = frozenset({"created_at", "in_progress_at", "expires_at"})
"""What stays true of a submission that begins a new life."""
PROBLEMS_MAX = 10


class Expiry(Struct, frozen=True, kw_only=True):
    """When the provider is to forget what we upload, and what it makes of it: seconds, or None
    for its own time."""

    input_seconds: int | None = None
    output_seconds: int | None = None


class PartState(StrEnum):
    WAITING = "waiting"
    """For room, or for its time."""
    SUBMITTING = "submitting"
    """It may be at the provider already: whoever meant to tell us may have died."""
    RUNNING = "running"
    ENDED = "ended"
    """Whatever came of it."""


class Part(Struct, frozen=True, kw_only=True):
    """Some of the requests, handed in as one batch. `round` 2 and on hold what is tried again."""

    id: str
    position: int
    round: int
    state: PartState
    lines: int
    size: int
    """In bytes."""
    tokens: int
    """By estimate."""
    tries: int
    due_at: float
    intent_at: float | None
    """When it was first meant to be handed in, this time."""
    file_id: str | None
    """Of the provider; it may be used again."""
    uploaded_at: float | None = None
    """When that file was handed in, where we know."""
    looked_through: bool
    """Whether its results were searched for what is to be tried again."""
    reason: str | None
    batch: Batch | None = None
    results: Results | None = None
    asked_at: float | None = None
    """When the provider was last asked to make the batch; None once it is known what came of it."""
    ask_again_at: float = 0.0
    """Until then what may have been made is looked for."""
    looks: int = 0
    """How often the list was looked through since, and showed nothing."""
    note: str | None = None
    """What was done otherwise than asked."""
    runs: Runs = ()
    """Which lines of the user's file it has; see `core.numbering`."""

    @property
    def tag(self) -> str:
        return f"{self.id}.{self.tries}"

    @property
    def settled(self) -> bool:
        """Whether it has ended, and what there is of its results is known."""
        merging = self.results is not None and self.results.state is ResultsState.WAITING
        return self.state is PartState.ENDED and not merging

    @property
    def unlooked(self) -> bool:
        return self.settled and not self.looked_through


class Submission(Struct, frozen=True, kw_only=True):
    """Requests, and what became of them so far."""

    batch: Batch
    """The submission as a batch of ours; its snapshot says what was asked for."""
    retry_missing: int
    """How many times what was not answered is handed in again."""
    cancelled_at: float | None
    reason: str | None
    failures: int
    """Steps that failed, one after the other."""
    created_at: float
    parts: tuple[Part, ...]
    """In the order of the input, and then of rounds."""
    lease_token: str | None = None
    retry_max_tokens: int | None = None
    """How much all that is handed in again may take, by estimate; None is no limit."""

    @property
    def id(self) -> str:
        return self.batch.id

    @property
    def snapshot(self) -> Snapshot:
        return self.batch.snapshot or Snapshot(id=self.id, provider_status="", status=None)

    @property
    def lines(self) -> int:
        return sum(part.lines for part in self.parts if part.round == 1)

    def last_parts(self) -> list[Part]:
        """The last round at each position."""
        return list({part.position: part for part in self.parts}.values())

    def may_retry(self, part: Part) -> bool:
        """Whether lines of a part that has ended may be handed in again."""
        tally = part.results.tally if part.results else None
        return (
            self.cancelled_at is None
            and part.round <= self.retry_missing
            and tally is not None
            and tally.succeeded < tally.lines
        )

    def may_spend(self, tokens: int) -> bool:
        """Whether so many more, by estimate, may be handed in again."""
        if self.retry_max_tokens is None:
            return True
        spent = sum(part.tokens for part in self.parts if part.round > 1)
        return spent + tokens <= self.retry_max_tokens


def new_name(project_id: str, part_id: str) -> str:
    """What the requests of a part are called in the results store."""
    return f"{project_id}/{part_id}{REQUESTS_ENDING}"


def part_of(name: str) -> str:
    """The id of the part whose requests have this name."""
    return name.rpartition("/")[2].removesuffix(REQUESTS_ENDING)


def is_refusal(problems: Collection[BatchProblem]) -> bool:
    """Whether a batch failed because too much is enqueued: the one thing that waiting mends."""
    return any(governor.says_no_room(one.code, one.message) for one in problems)


def is_refused(part: Part) -> bool:
    """Whether the part's batch is to be handed in again, later."""
    batch = part.batch
    if batch is None or batch.status is not Status.FAILED or part.tries >= REFUSALS_MAX:
        return False
    return batch.snapshot is not None and is_refusal(batch.snapshot.problems)


def has_answers(batch: Batch) -> bool:
    """Whether the provider may have answers of a part: a batch that failed usually has none."""
    if not batch.status.ended or batch.status is Status.LOST:
        return False
    seen = batch.snapshot
    files = seen is not None and seen.answers
    return bool(files) or batch.status is not Status.FAILED


def is_unfetched(part: Part, *, asked_at: float | None) -> bool:
    """Whether a part's answers are to be fetched (again) before all of them are joined.

    `asked_at` is when somebody last asked for the joined results again. It gives answers that
    could not be had another chance, once.
    """
    if part.state is not PartState.ENDED or part.batch is None or not has_answers(part.batch):
        return False
    found = part.results
    if found is None or found.ended_at == EXPUNGED_AT:
        return True
    if found.state is not ResultsState.FAILED or asked_at is None:
        return False
    return found.asked_at is None or found.asked_at < asked_at


def names_requests(part: Part) -> bool:
    """Whether the part's merged answers have a line for each request, so say what was asked."""
    return part.results is not None and part.results.state is ResultsState.READY


def keeps_requests(part: Part) -> bool:
    """Whether a part's file of requests is still of use when the answers have been joined.

    What was lost may come back, and requests without answers are named by nothing else.
    """
    if part.batch is not None and part.batch.status is Status.LOST:
        return True
    return part.round == 1 and not names_requests(part)


def is_stale(part: Part, expiry: Expiry, *, now: float) -> bool:
    """Whether the part's file may be gone before the provider has read it.

    In the second half of its time it is not used any more: the batch may be read late.
    """
    if part.file_id is None or expiry.input_seconds is None:
        return False
    return part.uploaded_at is None or now - part.uploaded_at > expiry.input_seconds / 2


def refused_wait(tries: int, *, rand: float) -> float:
    """Seconds until a part for which there was no room is tried again; sooner if room comes."""
    return backoff.exponential(
        tries, base_seconds=REFUSED_SECONDS, max_seconds=REFUSED_MOST_SECONDS, rand=rand
    )


def failure_wait(failures: int, *, asked_seconds: float | None, rand: float) -> float:
    """Seconds until a submission goes on whose account cannot be called just now."""
    wait = backoff.exponential(
        failures, base_seconds=TROUBLE_SECONDS, max_seconds=TROUBLE_MOST_SECONDS, rand=rand
    )
    return max(wait, asked_seconds or 0.0)


def sighting(found: Submission, *, now: float) -> Snapshot:
    """The submission as its parts now make it."""
    status = _status(found)
    seen = found.snapshot
    stamps = {**seen.timestamps}
    if status is not Status.VALIDATING:
        stamps.setdefault(f"{status}_at", int(now))
    return Snapshot(
        id=found.id,
        provider_status=status.value,
        status=status,
        counts=_counts(found),
        endpoint=seen.endpoint,
        model=seen.model,
        completion_window=seen.completion_window,
        timestamps=stamps,
        problems=_problems(found),
        usage=_usage(found),
        metadata=seen.metadata,
        parts=tuple(part.batch.id for part in found.parts if part.batch),
    )


def begin_anew(whole: Batch, now: float) -> Batch:
    """A submission that has ended, and one of whose lost parts is there after all."""
    seen = whole.snapshot
    if seen is not None:  # when it ended is not known any more
        stamps = {name: at for name, at in seen.timestamps.items() if name in BEGUN_STAMPS}
        seen = replace(seen, timestamps=stamps)
    return replace(lifecycle.begin_anew(whole, now), snapshot=seen)


def standing(found: Submission) -> Batch:
    """The submission as a batch, by what its parts are at this moment.

    Its own row is written when a worker has looked at it, which may take a minute or, while the
    provider cannot be called, much longer.
    """
    batch = found.batch
    if batch.status.ended:
        return batch
    status = Status.CANCELLING if found.cancelled_at is not None else batch.status
    return replace(batch, status=status, snapshot=replace(found.snapshot, counts=_counts(found)))


def _status(found: Submission) -> Status:
    if all(part.settled and part.looked_through for part in found.parts):
        return _end(found)
    if found.cancelled_at is not None:
        return Status.CANCELLING
    begun = any(part.batch is not None for part in found.parts)
    return Status.IN_PROGRESS if begun else Status.VALIDATING


def _end(found: Submission) -> Status:
    """How the whole has ended. What failed beside something that succeeded is said by the counts.

    The last round at each position speaks for it.
    """
    ends = {_end_of(found, part) for part in found.last_parts()}
    if ends <= {Status.COMPLETED}:
        return Status.COMPLETED
    if found.cancelled_at is not None:
        return Status.CANCELLED
    for status in (Status.EXPIRED, Status.CANCELLED):
        if status in ends:
            return status
    return Status.COMPLETED if _counts(found).completed else Status.FAILED


def _end_of(found: Submission, part: Part) -> Status:
    if part.batch is None:
        return Status.FAILED if found.cancelled_at is None else Status.CANCELLED
    return part.batch.status


def _counts(found: Submission) -> Counts:
    """A request that was tried again counts once, as its last round has it."""
    total = found.lines
    completed = sum(_succeeded(part) for part in found.parts)
    unknown = sum(_unanswered(part) for part in found.last_parts())
    return Counts(total=total, completed=completed, failed=max(0, total - completed - unknown))


def _succeeded(part: Part) -> int:
    if part.results is not None and part.results.tally is not None:
        return part.results.tally.succeeded
    counts = part.batch.snapshot.counts if part.batch and part.batch.snapshot else None
    return min(counts.completed, part.lines) if counts else 0


def _unanswered(part: Part) -> int:
    """Requests of which nothing is known (yet), or that never ran."""
    if part.results is not None and part.results.tally is not None:
        return part.results.tally.not_run
    counts = part.batch.snapshot.counts if part.batch and part.batch.snapshot else None
    if counts is None or part.state is PartState.ENDED:
        return part.lines
    return max(0, part.lines - counts.completed - counts.failed)


def _problems(found: Submission) -> tuple[BatchProblem, ...]:
    """What went wrong with whole parts."""
    problems: list[BatchProblem] = []
    for part in found.last_parts():
        if part.state is not PartState.ENDED:
            continue
        if part.batch is not None and part.batch.snapshot is not None:
            problems += [_in_whole(one, part) for one in part.batch.snapshot.problems]
        if part.reason is not None:
            problems.append(BatchProblem(code="part_rejected", message=part.reason))
    return tuple(dict.fromkeys(problems))[:PROBLEMS_MAX]


def _in_whole(problem: BatchProblem, part: Part) -> BatchProblem:
    """With the line of the user's file in place of the part's."""
    line = problem.line
    known = line is not None and line <= part.lines
    return replace(problem, line=number_at(part.runs, line) if line and known else None)


def _usage(found: Submission) -> Mapping[str, Any] | None:
    """Summed, as OpenAI writes it; None while nothing is known."""
    used: Counter[str] = Counter()
    for tokens in _tokens(found.parts):
        used.update(tokens)
    if not used:
        return None
    return {
        "input_tokens": used["input"],
        "input_tokens_details": {"cached_tokens": used["cached"]},
        "output_tokens": used["output"],
        "output_tokens_details": {"reasoning_tokens": used["reasoning"]},
        "total_tokens": used["input"] + used["output"],
    }


def _tokens(parts: Sequence[Part]) -> list[dict[str, int]]:
    return [
        {
            "input": tokens.input_tokens,
            "cached": tokens.cached_tokens,
            "output": tokens.output_tokens,
            "reasoning": tokens.reasoning_tokens,
        }
        for part in parts
        if part.results is not None and part.results.tally is not None
        for tokens in part.results.tally.usage.values()
    ]


def input_used(part: Part) -> tuple[int, int]:
    """The bytes of a part's requests that were answered, and the prompt tokens they took."""
    tally = part.results.tally if part.results else None
    if tally is None or not part.lines:
        return 0, 0
    answered = sum(tokens.requests for tokens in tally.usage.values())
    used = sum(tokens.input_tokens for tokens in tally.usage.values())
    return part.size * min(answered, part.lines) // part.lines, used
