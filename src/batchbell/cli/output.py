"""Tables for people, JSON for programs."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 400
"""Columns for lines that go to no terminal."""


def console(*, stderr: bool = False) -> Console:
    """Where people read: as wide as the terminal, or wide enough."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else PIPE_WIDTH)


def print_json(value: Any) -> None:
    """One document, indented."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_json_lines(values: Iterable[Any]) -> None:
    """One document a line."""
    import msgspec

    for value in values:
        print(msgspec.json.encode(value).decode())


def print_table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """A table on standard output; the sentence `empty` on standard error where it has no rows.

    On a terminal it is as wide as that, and columns are left out if need be; elsewhere all are
    there, and nothing is wrapped.
    """
    cells = [[plain(cell) for cell in row] for row in rows]
    if not cells:
        print(empty, file=sys.stderr)
        return
    shown, widths = fitted(heads, cells, room=room())
    whole = [room() is None or heads[at] not in TEXTS for at in shown]
    _print_bold(next(lines([heads[at] for at in shown], widths, whole=whole)))
    for row in cells:
        for line in lines([row[at] for at in shown], widths, whole=whole):
            print(line)
    hidden = ", ".join(head for at, head in enumerate(heads) if at not in shown)
    if hidden:
        say(f"Not shown in a terminal of this width: {hidden}. --json has everything.")


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line; what is None is left out."""
    print_grid([([(name, "bold")], plain(value)) for name, value in facts if value is not None])


def print_grid(rows: Sequence[tuple[Sequence[tuple[str, str]], str]]) -> None:
    """Words in columns, each with its style, and a text beside them, broken between words only."""
    from rich.text import Text

    if not rows:
        return
    widths = [max(len(words[at][0]) for words, _ in rows) for at in range(len(rows[0][0]))]
    left = sum(widths) + GAP * len(widths)
    columns = room()
    target = console()
    for words, text in rows:
        head = Text()
        for (word, style), width in zip(words, widths, strict=True):
            head.append(word, style=style).append(" " * (width + GAP - len(word)))
        for line in text.split("\n"):
            width = max(TEXT_LEAST, columns - left) if columns else len(line)
            for part in wrapped(line, width):
                head.append(part)
                head.rstrip()
                target.print(head, soft_wrap=True)
                head = Text(" " * left)


def room() -> int | None:
    """How wide the terminal is; None where standard output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _print_bold(line: str) -> None:
    from rich.text import Text

    console().print(Text(line, style="bold"), soft_wrap=True)


def plain(value: object) -> str:
    """Text that cannot move the cursor: much of it comes from providers and receivers."""
    if value is None:
        return "-"
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in str(value))


def moment(seconds: float | None) -> str | None:
    """A time in this machine's zone."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def say(line: str) -> None:
    """A line for people, on standard error, so that standard output stays for the answer."""
    print(plain(line), file=sys.stderr, flush=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone, unless `yes`. Raises Abort, and BadParameter."""
    import typer

    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("Pass --yes: there is no terminal to ask at.")
    typer.confirm(plain(question), abort=True, err=True)


GAP = 2
TEXT_LEAST = 24
"""Columns of the terminal below which wrapped text is hard to read."""

TEXTS = frozenset({"url", "base url", "events", "reason", "because", "answer"})
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
    "reason",
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
