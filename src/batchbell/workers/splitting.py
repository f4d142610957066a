"""Splitting a part that is larger than what the provider lets be enqueued at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from batchbell.core import governor
from batchbell.core.governor import Learnt
from batchbell.core.limits import Limits
from batchbell.core.model import Mint
from batchbell.core.numbering import Runs
from batchbell.core.submission import Part, PartState, Submission, new_name
from batchbell.files.lines import open_lines
from batchbell.files.preflight import Part as Piece
from batchbell.files.preflight import split
from batchbell.files.shelf import Shelf, fetch
from batchbell.storage import capacities, submitting
from batchbell.storage.engine import Store
from batchbell.storage.submissions import NewPart
from batchbell.threads import disk, heavy

log = structlog.get_logger("batchbell.submitter")


class Splitting:
    """See the module."""

    def __init__(
        self, store: Store, shelf: Shelf, *, clock: Callable[[], float], mint: Mint
    ) -> None:
        self._store = store
        self._shelf = shelf
        self._clock = clock
        self._mint = mint

    async def split_large(self, held: Submission, folder: Path) -> Submission:
        """The submission with parts that may fit. Raises ResultsError and LeaseLost."""
        account_id, model = held.batch.account_id, held.snapshot.model or ""
        known = await self._store.read(capacities.learnt, account_id, model)
        for part in held.parts:
            tokens = self._split_at(part, known)
            if tokens is not None:
                held = await self._split(held, part, tokens, known, folder)
        return held

    def _split_at(self, part: Part, known: Learnt) -> int | None:
        """A later round is never larger than the first, which did fit."""
        if part.state is not PartState.WAITING or part.round > 1 or part.lines == 1:
            return None
        tokens = governor.estimate(known, part.size)
        return governor.split_at(known, tokens=tokens, tries=part.tries, now=self._clock())

    async def _split(
        self, held: Submission, part: Part, tokens: int, known: Learnt, folder: Path
    ) -> Submission:
        project_id = held.batch.project_id
        old = new_name(project_id, part.id)
        pieces = folder / f"{part.id}.pieces"
        found = await disk(_place, pieces)
        await fetch(self._shelf, old, found)
        made = await heavy(project_id, _split, found, tokens, known.bytes_per_token, part.runs)
        new = [await self._shelve(held, piece) for piece in made]
        after = await self._store.write(submitting.replace_part, held, part, new, now=self._clock())
        await self._shelf.delete(old)
        log.info("part split", submission=held.id, part=part.id, into=len(new), tokens=tokens)
        return after

    async def _shelve(self, held: Submission, piece: Piece) -> NewPart:
        new = NewPart(
            self._mint("prt"),
            piece.lines,
            piece.size,
            piece.tokens,
            piece.numbering.runs,
        )
        await self._shelf.put(new_name(held.batch.project_id, new.id), piece.path)
        return new


def _place(pieces: Path) -> Path:
    pieces.mkdir()
    return pieces / "requests"


def _split(file: Path, tokens: int, bytes_per_token: float, runs: Runs) -> list[Piece]:
    with open_lines(file) as source:
        return split(
            source,
            file.parent,
            limits=Limits(tokens=tokens),
            bytes_per_token=bytes_per_token,
            runs=runs,
        )
