"""Deleting a batch's files at its provider, once its results are kept here and nothing is in doubt.

What is in doubt stays: the provider's files are then the only proof of what it answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from batchbell.core import backoff
from batchbell.core.errors import ProviderError, ProviderRejected
from batchbell.core.model import Batch, Status
from batchbell.core.results import Results, ResultsState, Tally, mismatch
from batchbell.core.submission import Part

TRIES_MAX = 20
"""Over some three days; then the files stay, and the batch says so."""
FIRST_WAIT_SECONDS = 60.0
LONGEST_WAIT_SECONDS = 6 * 3600.0


class Deletes(StrEnum):
    """Which files are to go."""

    NONE = "none"
    OUTPUTS = "outputs"
    """The output file and the error file."""
    ALL = "all"
    """The input file too."""


class DeletionState(StrEnum):
    DUE = "due"
    DELETED = "deleted"
    KEPT = "kept"
    """Something was in doubt."""
    FAILED = "failed"
    """Given up: the provider did not let us."""


class ProviderFile(Struct, frozen=True):
    """What a reference names at the provider, mostly a file. Others may use an input, too."""

    id: str
    is_input: bool = False


class Decision(Struct, frozen=True, kw_only=True):
    """Which files are to be deleted; none, for a `reason`."""

    files: tuple[ProviderFile, ...] = ()
    reason: str | None = None


class Deletion(Struct, frozen=True, kw_only=True):
    """How far it is. `due_at` and `ended_at` are seconds since the epoch."""

    state: DeletionState
    reason: str | None
    """Why something is still there."""
    due_at: float | None
    ended_at: float | None


class Deleting(Struct, frozen=True, kw_only=True):
    """A deletion in a worker's hands."""

    results: Results
    batch_id: str
    account_id: str
    files: tuple[ProviderFile, ...]
    """What is still to be deleted."""
    tries: int
    lease_token: str


def decide(
    deletes: Deletes, batch: Batch, tally: Tally, parts: Sequence[Part] = ()
) -> Decision | None:
    """What is to become of the files of a batch whose results have just been kept.

    `parts` are those of a submission, whose files go all together or not at all. None where
    there is nothing to be deleted.
    """
    if deletes is Deletes.NONE:
        return None
    inputs = deletes is Deletes.ALL
    if parts:
        files = [file for part in parts for file in _files_of_part(part, inputs=inputs)]
    else:
        files = [*_answers(batch), *_input(batch, tally, inputs=inputs)]
    if not files:
        return None
    reason = doubt(batch, tally) or next(filter(None, map(_doubt_of_part, parts)), None)
    if reason:
        return Decision(reason=reason)
    return Decision(files=tuple(sorted(dict.fromkeys(files), key=lambda file: file.is_input)))


def doubt(batch: Batch, tally: Tally) -> str | None:
    """Why the merged results may lack something that the provider's files have; None for no doubt.

    Only counts that are whole prove that nothing is missing: without them the files stay.
    """
    counts = batch.snapshot.counts if batch.snapshot else None
    if counts is None or counts.total == 0:
        return "The provider does not say how many requests there were."
    if not counts.whole:
        return "The provider does not say how many requests completed and how many failed."
    return mismatch(batch, tally) or next(iter(tally.notes), None)


def _doubt_of_part(part: Part) -> str | None:
    batch, found = part.batch, part.results
    if batch is None or not _answers(batch):
        return None
    if found is None or found.tally is None:
        return f"The results of batch {batch.id} were not merged."
    reason = doubt(batch, found.tally)
    return reason and f"Batch {batch.id}: {reason}"


def _answers(batch: Batch) -> list[ProviderFile]:
    return [ProviderFile(ref) for ref in batch.snapshot.answers] if batch.snapshot else []


def _input(batch: Batch, tally: Tally, *, inputs: bool) -> list[ProviderFile]:
    """Only one that was read: by it we know that every request has its line."""
    id = batch.snapshot.input_file_id if batch.snapshot else None
    return [ProviderFile(id, is_input=True)] if inputs and id and tally.in_input_order else []


def _files_of_part(part: Part, *, inputs: bool) -> list[ProviderFile]:
    """Its input is ours, even where it never became a batch."""
    files = _answers(part.batch) if part.batch else []
    if inputs and part.file_id:
        files.append(ProviderFile(part.file_id, is_input=True))
    return files


def needs_input(batch: Batch, found: Results | None) -> bool:
    """Whether the input of a batch must stay where it is; `found` are its newest results."""
    if not batch.status.ended or batch.status is Status.LOST:
        return True
    if found is not None and found.state is ResultsState.WAITING:
        return True
    if not _answers(batch):
        return False
    return found is None or found.tally is None or doubt(batch, found.tally) is not None


def next_try(error: Exception, *, tries: int, now: float, rand: float) -> float | None:
    """When to try again after an error; None where that is of no use."""
    if isinstance(error, ProviderRejected) or tries >= TRIES_MAX:
        return None
    wait = backoff.exponential(
        tries, base_seconds=FIRST_WAIT_SECONDS, max_seconds=LONGEST_WAIT_SECONDS, rand=rand
    )
    return now + max(wait, asked_seconds(error))


def asked_seconds(error: Exception) -> float:
    """How long the provider asks to be left alone."""
    asked = error.retry_after_seconds if isinstance(error, ProviderError) else None
    return asked or 0.0
