"""Tables that read well in a terminal and in a Markdown document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

WIDTH = 140


def show(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print one table: the first column is words, the others are figures."""
    table = Table(box=MARKDOWN, pad_edge=True)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(width=WIDTH, highlight=False)
    with console.capture() as printed:
        console.print(table)
    print("\n".join(line.rstrip() for line in printed.get().splitlines() if line.strip()))


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
