"""Tables that fit a terminal: columns go, the least important first, and no id is ever broken.

Text of which a reader needs the words only, such as a reason or a URL, is wrapped. All else stays
on one line: where even the first column is wider than the terminal, its lines are longer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest

GAP = 2
TEXT_LEAST = 24
"""Columns of the terminal below which wrapped text is hard to read."""

TEXTS = frozenset({"url", "base url", "events", "trouble", "because", "answer"})
"""Columns that may be wrapped."""
LEAST_IMPORTANT_FIRST = (
    "event id",
    "registered",
    "made",
    "source",
    "key",
    "provider",
    "since",
    "took",
    "account",
    "swept",
    "tries",
    "events",
    "next",
    "answer",
    "at",
    "ended",
    "requests",
    "happened",
    "url",
    "base url",
    "trouble",
    "because",
)
"""In which order columns go. Those that are not named go last, from the right."""
ID = re.compile(r"[A-Za-z]+_[A-Za-z0-9._-]{8,}")


def fitted(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, room: int | None
) -> tuple[list[int], list[int]]:
    """Which columns are shown, and how wide each of them is. Without a `room`, all of them are."""
    columns = [[head, *(row[at] for row in rows)] for at, head in enumerate(heads)]
    natural = [max(map(_width, cells)) for cells in columns]
    if room is None:
        return [*range(len(heads))], natural
    least = [
        min(natural[at], _least(cells)) if heads[at] in TEXTS else natural[at]
        for at, cells in enumerate(columns)
    ]
    shown = [0]
    for at in reversed([*_order(heads)]):
        if _total([least[one] for one in (*shown, at)]) <= room:
            shown.append(at)
    shown.sort()
    widths = {at: least[at] for at in shown}
    spare = room - _total([*widths.values()])
    for at in shown:
        more = max(0, min(spare, natural[at] - widths[at]))
        widths[at] += more
        spare -= more
    return shown, [*widths.values()]


def lines(cells: Sequence[str], widths: Sequence[int], *, whole: Sequence[bool]) -> Iterator[str]:
    """The lines of a row. A cell that is `whole` is broken at its own line ends only."""
    from rich.cells import cell_len

    parts = [
        cell.split("\n") if keep else wrapped(cell, width, fold=True)
        for cell, width, keep in zip(cells, widths, whole, strict=True)
    ]
    for line in zip_longest(*parts, fillvalue=""):
        padded = (
            part + " " * (width - cell_len(part)) for part, width in zip(line, widths, strict=True)
        )
        yield (" " * GAP).join(padded).rstrip()


def wrapped(text: str, width: int, *, fold: bool = False) -> list[str]:
    """Lines broken between words; a word that is longer is broken only if `fold`."""
    from rich.console import Console
    from rich.text import Text

    overflow = "fold" if fold else "ignore"
    found = Text(text).wrap(Console(width=width), max(1, width), overflow=overflow)  # type: ignore[arg-type]
    return [line.plain.rstrip() for line in found] or [""]


def _order(heads: Sequence[str]) -> Iterator[int]:
    """Every column but the first, as they go."""
    named = [heads.index(name) for name in LEAST_IMPORTANT_FIRST if name in heads[1:]]
    yield from named
    yield from (at for at in range(len(heads) - 1, 0, -1) if at not in named)


def _least(cells: Sequence[str]) -> int:
    """How narrow a column of text may be: no id in it is broken."""
    ids = (len(found) for cell in cells for found in ID.findall(cell))
    return max(TEXT_LEAST, *ids, len(cells[0]))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _width(cell: str) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, cell.split("\n")))
