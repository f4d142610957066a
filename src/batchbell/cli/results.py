"""`results`: a line for each request of a batch, to standard output or to a file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from batchbell.cli.options import ApiKey, BatchId, Server
from batchbell.cli.printing import console, tell
from batchbell.cli.reach import connected

See = Callable[[int, int | None], None]


def results(
    batch_id: BatchId,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write to a file; a broken download goes on."
        ),
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only lines that have succeeded, failed or were not_run.",
        ),
    ] = None,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Print the results of a batch: JSON, a line for each request, in the order of the input.

    Waits while they are being merged.
    """
    if output is not None and status is not None:
        raise typer.BadParameter("A file takes all lines; leave one out.", param_hint="--status")
    with connected(server, api_key) as client:
        if output is None:
            for line in client.result_texts(batch_id, status=status):
                sys.stdout.buffer.write(line + b"\n")
            return
        with _bar(output) as see:
            client.download_results(batch_id, output, on_bytes=see)
    tell(f"{output}: {output.stat().st_size:,} bytes.")


@contextlib.contextmanager
def _bar(output: Path) -> Iterator[See]:
    """A progress bar on a terminal; nothing elsewhere."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    target = console(stderr=True)
    with Progress(*columns, console=target, disable=not target.is_terminal) as bar:
        task = bar.add_task(output.name, total=None)
        yield lambda there, size: bar.update(task, completed=there, total=size)
