"""The first lines of results, those that failed before all others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from batchbell.core.errors import ResultsError
from batchbell.core.results import Results
from batchbell.files.lines import Fate, answer, whole_lines
from batchbell.files.results_store import ResultsStore
from batchbell.threads import stored

LINES = 20
LINE_MAX_BYTES = 4_000
"""What is shown of one line."""
READ_MAX_BYTES = 4 * 2**20
"""What is read to find lines: a page must not wait for gigabytes."""
KEPT_MAX = 32


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    """In the file, from 1."""
    custom_id: str
    fate: Fate | None
    text: str
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Preview:
    lines: Sequence[Line]
    is_whole: bool
    """Whether all of the file was looked at."""


class Previews:
    """The latest ones: what was merged does not change, and a live page is made again and again."""

    def __init__(self, results_store: ResultsStore) -> None:
        self._results_store = results_store
        self._kept: OrderedDict[tuple[str, float | None, Fate | None], Preview] = OrderedDict()

    async def of(self, found: Results, fate: Fate | None) -> Preview | None:
        """As `read` answers."""
        name = (found.name, found.ended_at, fate)
        kept = self._kept.pop(name, None) or await read(self._results_store, found, fate)
        if kept is not None:
            self._kept[name] = kept
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return kept


async def read(results_store: ResultsStore, found: Results, fate: Fate | None) -> Preview | None:
    """The first lines of one fate, or of all; None where they are not where they were kept."""
    assert found.tally is not None
    size = found.tally.size
    end = min(size, READ_MAX_BYTES)
    lines: list[Line] = []
    try:
        async for some in whole_lines(results_store.read(found.name, start=0, end=end)):
            lines += await stored(found.project_id, _read, some, len(lines))
    except ResultsError:
        return None
    if end < size and lines:
        lines.pop()  # it is cut off
    chosen = [one for one in lines if fate is None or one.fate is fate]
    if fate is None:
        chosen.sort(key=lambda one: (ORDER.get(one.fate, 0), one.number))
    return Preview(chosen[:LINES], end == size)


ORDER: dict[Fate | None, int] = {Fate.FAILED: 0, None: 0, Fate.NOT_RUN: 1, Fate.SUCCEEDED: 2}


def _read(some: Sequence[bytes], before: int) -> list[Line]:
    return [_line(text, before + at) for at, text in enumerate(some, 1) if text]


def _line(text: bytes, number: int) -> Line:
    said = answer(text)
    return Line(
        number=number,
        custom_id=said.custom_id if said and said.custom_id else "",
        fate=said.fate if said else None,
        text=text[:LINE_MAX_BYTES].decode("utf-8", "replace"),
        is_cut=len(text) > LINE_MAX_BYTES,
    )
