"""`results`: a line for each request of a batch, to standard output, or to a file as a table."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from batchbell.cli.connection import connected
from batchbell.cli.options import ApiKey, BatchId, Server
from batchbell.cli.output import console, say

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
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="What the file is: jsonl, parquet or csv. By default as its name ends.",
        ),
    ] = None,
    refetch: Annotated[
        bool,
        typer.Option(
            "--refetch",
            help="Fetch them from the provider again first, if they failed, were expunged, or are"
            " missing on the server.",
        ),
    ] = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Print the results of a batch: JSON, a line for each request, in the order of the input.

    Or write them to a file, also as a table. Waits while they are being merged.
    """
    if output is None and format not in (None, "jsonl"):
        raise typer.BadParameter("A table needs a file: say -o FILE.", param_hint="--format")
    with connected(server, api_key) as client:
        if refetch:
            client.fetch_results(batch_id)
        if output is None:
            for line in client.result_texts(batch_id, status=status):
                sys.stdout.buffer.write(line + b"\n")
            return
        with _bar(output) as see:
            client.download_results(batch_id, output, status=status, format=format, on_bytes=see)
    say(f"{output}: {output.stat().st_size:,} bytes.")


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
