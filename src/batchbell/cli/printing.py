"""Tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPE_WIDTH = 400
"""Columns for a table that goes to no terminal: nothing is cut that a script may look for."""


def console(*, stderr: bool = False) -> Console:
    """Where people read: as wide as the terminal, or wide enough."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(
        file=stream, highlight=False, width=None if stream.isatty() else PIPE_WIDTH, soft_wrap=False
    )


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
    """A table on standard output; the sentence `empty` on standard error where it has no rows."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    if table.row_count:
        show(table)
    else:
        print(empty, file=sys.stderr)


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line; what is None is left out."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        if value is not None:
            table.add_row(name, Text(plain(value)))
    show(table)


def show(table: Table) -> None:
    """A table on standard output; to no terminal, without the spaces that fill its lines."""
    target = console()
    if target.is_terminal:
        target.print(table)
        return
    with target.capture() as captured:
        target.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


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
