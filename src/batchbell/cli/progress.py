"""A batch on its way, for people: a bar on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from batchbell.cli.printing import console, plain

if TYPE_CHECKING:
    from rich.console import Console

    from batchbell.client import Batch

See = Callable[["Batch"], None]


@contextlib.contextmanager
def showing(batch_id: str) -> Iterator[See]:
    """Yields what to call with every sight of the batch. Writes to standard error."""
    target = console(stderr=True)
    with _bar(batch_id, target) if target.is_terminal else _lines(batch_id, target) as see:
        yield see


@contextlib.contextmanager
def _bar(batch_id: str, target: Console) -> Iterator[See]:
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=target) as bar:
        task = bar.add_task(escape(plain(batch_id)), total=None, status="")

        def see(batch: Batch) -> None:
            counts = batch.request_counts
            bar.update(
                task,
                total=counts.total if counts and counts.total else None,
                completed=counts.completed + counts.failed if counts else 0,
                status=escape(_status(batch)),
            )

        yield see


@contextlib.contextmanager
def _lines(batch_id: str, target: Console) -> Iterator[See]:
    last = ""

    def see(batch: Batch) -> None:
        nonlocal last
        line = f"{plain(batch_id)}: {standing(batch)}"
        if line != last:
            target.print(line, markup=False, soft_wrap=True)
            last = line

    yield see


def standing(batch: Batch) -> str:
    """Status and counts in a few words."""
    counts = batch.request_counts
    if counts is None or not counts.total:
        return _status(batch)
    done = f"{_status(batch)}, {counts.completed + counts.failed:,} of {counts.total:,} done"
    return f"{done}, {counts.failed:,} failed" if counts.failed else done


def _status(batch: Batch) -> str:
    """The true status, and the provider's word where that is another."""
    ours, theirs = batch.batchbell.status, batch.batchbell.provider_status
    return plain(ours if theirs in (None, ours) else f"{ours} ({theirs})")
