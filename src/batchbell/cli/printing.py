"""Tables for people, JSON for programs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from batchbell.cli import tables

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
    shown, widths = tables.fitted(heads, cells, room=room())
    whole = [room() is None or heads[at] not in tables.TEXTS for at in shown]
    _print_bold(next(tables.lines([heads[at] for at in shown], widths, whole=whole)))
    for row in cells:
        for line in tables.lines([row[at] for at in shown], widths, whole=whole):
            print(line)
    hidden = ", ".join(head for at, head in enumerate(heads) if at not in shown)
    if hidden:
        tell(f"Not shown in a terminal of this width: {hidden}. --json has everything.")


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line; what is None is left out."""
    print_grid([([(name, "bold")], plain(value)) for name, value in facts if value is not None])


def print_grid(rows: Sequence[tuple[Sequence[tuple[str, str]], str]]) -> None:
    """Words in columns, each with its style, and a text beside them, broken between words only."""
    from rich.text import Text

    if not rows:
        return
    widths = [max(len(words[at][0]) for words, _ in rows) for at in range(len(rows[0][0]))]
    left = sum(widths) + tables.GAP * len(widths)
    columns = room()
    target = console()
    for words, text in rows:
        head = Text()
        for (word, style), width in zip(words, widths, strict=True):
            head.append(word, style=style).append(" " * (width + tables.GAP - len(word)))
        for line in text.split("\n"):
            width = max(tables.TEXT_LEAST, columns - left) if columns else len(line)
            for part in tables.wrapped(line, width):
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


def tell(line: str) -> None:
    """A line for people, on standard error, so that standard output stays for the answer."""
    print(plain(line), file=sys.stderr, flush=True)
