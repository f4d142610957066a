"""Joining the results of a submission's parts, for the collector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from batchbell.core import results as rules
from batchbell.core import submission
from batchbell.core.errors import PartsAwaited, ResultsGone, ResultsUnavailable
from batchbell.core.model import Mint
from batchbell.core.results import ResultsState, Tally
from batchbell.core.submission import Part, Submission, new_name
from batchbell.files.rejoining import Rounds, join
from batchbell.files.shelf import Shelf, fetch
from batchbell.storage import wanting
from batchbell.storage.engine import Store
from batchbell.threads import heavy

FLUSH_BYTES = 4 * 2**20
NOTES_MAX = 10


async def have_parts_fetched(
    found: Submission,
    store: Store,
    shelf: Shelf,
    *,
    asked_at: float | None,
    mint: Mint,
    now: float,
) -> None:
    """Return once the answers of all parts are here, or cannot be had.

    Answers that are gone from where they were kept are asked of the provider again, and those
    that could not be had, if somebody asked again (`asked_at`). Raises ResultsUnavailable, and
    PartsAwaited while parts are being fetched.
    """
    unfetched = [
        part
        for part in found.parts
        if submission.is_unfetched(part, asked_at=asked_at) or await _is_gone(part, shelf)
    ]
    if unfetched:
        pairs = [(p.batch, p.results.id if p.results else None) for p in unfetched if p.batch]
        await store.write(wanting.want_anew, pairs, mint=mint, now=now)
        raise ResultsUnavailable(
            f"The answers of {len(unfetched)} parts are not here: the provider is asked for them"
            " again."
        )
    states = [part.results.state for part in found.parts if part.results is not None]
    waiting = states.count(ResultsState.WAITING)
    if waiting:
        raise PartsAwaited(f"The answers of {waiting} parts are being fetched.")
    if states and ResultsState.READY not in states:
        raise ResultsUnavailable(f"No answers can be had. {_reason(found.parts)}")


async def _is_gone(part: Part, shelf: Shelf) -> bool:
    """Whether merged answers are not there any more as they were written."""
    found = part.results
    if found is None or found.state is not ResultsState.READY or found.tally is None:
        return False
    try:
        return await shelf.size(found.name) != found.tally.size
    except ResultsGone:
        return True


def _reason(parts: Sequence[Part]) -> str:
    reasons = [part.results.trouble for part in parts if part.results and part.results.trouble]
    return reasons[0] if reasons else ""


async def write_joined(found: Submission, shelf: Shelf, target: Path) -> Tally:
    """Write all answers to `target`, in the order of the requests. Raises ResultsError."""
    positions, notes, in_order = [], [], True
    for _, group in groupby(found.parts, key=lambda part: part.position):
        parts = list(group)
        rounds = await _fetch_rounds(found, parts, shelf, target.parent)
        positions.append(rounds)
        notes += _notes(parts, rounds)
        in_order &= _is_in_order(parts[0], rounds)
    tally = await heavy(found.batch.project_id, _write, positions, target)
    return replace(
        tally,
        in_input_order=tally.in_input_order and in_order,
        notes=(*tally.notes, *notes[:NOTES_MAX]),
    )


async def _fetch_rounds(
    found: Submission, parts: Sequence[Part], shelf: Shelf, folder: Path
) -> Rounds:
    answers = []
    for part in parts:
        if part.results is not None and part.results.state is ResultsState.READY:
            answers.append(folder / f"{part.id}.out")
            await fetch(shelf, part.results.name, answers[-1])
    file = folder / f"{parts[0].id}.in"
    requests: Path | None = file
    try:
        await fetch(shelf, new_name(found.batch.project_id, parts[0].id), file)
    except ResultsGone:
        requests = answers[0] if submission.names_requests(parts[0]) else None
    code, message = _missing(found, parts[-1])
    return Rounds(requests=requests, answers=answers, missing_code=code, missing_message=message)


def _is_in_order(first: Part, rounds: Rounds) -> bool:
    """Whether the requests stand as they were handed in, also where answers stand for them."""
    if rounds.requests is None or rounds.requests not in rounds.answers:
        return True
    tally = first.results.tally if first.results else None
    return tally is not None and tally.in_input_order


def _notes(parts: Sequence[Part], rounds: Rounds) -> list[str]:
    """What could not be had."""
    notes = [
        f"The answers of batch {part.batch.id} could not be fetched: {part.results.trouble}"
        for part in parts
        if part.batch and part.results and part.results.state is ResultsState.FAILED
    ]
    if rounds.requests is None:
        notes.append(
            f"The requests of part {parts[0].position} ({parts[0].lines} lines) are not kept any"
            " more: those without an answer are not listed."
        )
    return notes


def _missing(found: Submission, last: Part) -> tuple[str, str]:
    """What is said of requests of which there is no answer."""
    if last.results is not None and last.results.state is ResultsState.FAILED:
        return rules.NEVER_RUN[0], f"The answer could not be fetched: {last.results.trouble}"
    if last.batch is not None:
        return rules.missing_answer(last.batch)
    if last.trouble is not None:
        return rules.NEVER_RUN[0], f"The provider did not take the batch: {last.trouble}"
    return rules.missing_answer(found.batch)


def _write(positions: Sequence[Rounds], target: Path) -> Tally:
    with target.open("wb", FLUSH_BYTES) as file:
        return join(positions, file)


async def discard_requests(found: Submission, shelf: Shelf, *, every: bool) -> None:
    """Delete the requests that are of no use once the answers are joined, or `every` one."""
    for part in found.parts:
        if every or not submission.keeps_requests(part):
            await shelf.delete(new_name(found.batch.project_id, part.id))
