"""Joining the results of a submission's parts, for the collector."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from batchbell.core import results as rules
from batchbell.core.results import ResultsState, Tally
from batchbell.core.submission import Part, Submission, new_name
from batchbell.files.rejoining import Rounds, join
from batchbell.files.shelf import Shelf, fetch
from batchbell.threads import heavy

FLUSH_BYTES = 4 * 2**20


async def write_joined(found: Submission, shelf: Shelf, target: Path) -> Tally:
    """Write all answers to `target`, in the order of the requests. Raises ResultsError."""
    folder = target.parent
    positions = [
        await _fetch_rounds(found, list(rounds), shelf, folder)
        for _, rounds in groupby(found.parts, key=lambda part: part.position)
    ]
    return await heavy(found.batch.project_id, _write, positions, target)


async def _fetch_rounds(
    found: Submission, rounds: Sequence[Part], shelf: Shelf, folder: Path
) -> Rounds:
    requests = folder / f"{rounds[0].id}.in"
    await fetch(shelf, new_name(found.batch.project_id, rounds[0].id), requests)
    answers = []
    for part in rounds:
        if part.results is not None and part.results.state is ResultsState.READY:
            answers.append(folder / f"{part.id}.out")
            await fetch(shelf, part.results.name, answers[-1])
    code, message = _missing(found, rounds[-1])
    return Rounds(requests=requests, answers=answers, missing_code=code, missing_message=message)


def _missing(found: Submission, last: Part) -> tuple[str, str]:
    """What is said of requests of which there is no answer."""
    if last.batch is not None:
        return rules.missing_answer(last.batch)
    if last.trouble is not None:
        return rules.NEVER_RUN[0], f"The provider did not take the batch: {last.trouble}"
    return rules.missing_answer(found.batch)


def _write(positions: Sequence[Rounds], target: Path) -> Tally:
    with target.open("wb", FLUSH_BYTES) as file:
        return join(positions, file)


async def discard_requests(found: Submission, shelf: Shelf) -> None:
    """Delete the requests of a submission whose joined results are kept."""
    for part in found.parts:
        await shelf.delete(new_name(found.batch.project_id, part.id))
