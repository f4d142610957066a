"""One batch from the command line: `wait` for its end, `expunge` its payloads, and its progress."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from batchbell.cli import lists
from batchbell.cli.connection import connected
from batchbell.cli.errors import Code, complain
from batchbell.cli.options import ApiKey, BatchId, Json, Server, WebhookUrl, Yes
from batchbell.cli.output import confirm, console, plain, print_facts, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from batchbell.client import Batch, Batchbell


def expunge(
    batch_id: BatchId,
    yes: Yes = False,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Remove the payloads of an ended batch: events, metadata, what receivers answered."""
    confirm(f"Remove the payloads of {batch_id}? They cannot be had again.", yes=yes)
    with connected(server, api_key) as client:
        expunged = client.expunge(batch_id)
    if json:
        print_json(expunged)
    else:
        print_facts(lists.facts(expunged))


OUTCOMES = {"succeeded": Code.DONE, "partial": Code.PARTIAL, "none": Code.NONE}


def wait(
    batch_id: BatchId,
    *,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="SECONDS", min=0, help="Give up after so long: exit 124."
        ),
    ] = None,
    url: WebhookUrl = None,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Wait until a batch has ended.

    Exits with 0 if all of it succeeded, 3 if some did, 4 if nothing did (failed, expired,
    cancelled, lost), 124 if it has not ended in time. With --url it is watched first.
    """
    from batchbell.client import WaitTimedOut

    with connected(server, api_key) as client:
        _known(client, batch_id, url)
        try:
            with showing(batch_id) as see:
                batch = client.wait(batch_id, timeout=timeout, on_change=see)
        except WaitTimedOut as error:
            complain(str(error))
            raise typer.Exit(Code.TIMED_OUT) from None
    if json:
        print_json(batch)
    else:
        print(f"{batch.id}: {standing(batch)}; outcome: {batch.batchbell.outcome}.")
    raise typer.Exit(exit_code(batch))


def exit_code(batch: Batch) -> Code:
    """What an ended batch makes of this command. Expired or cancelled with results is partial."""
    outcome = batch.batchbell.outcome
    return OUTCOMES.get(outcome or "", Code.FAILED)


def _known(client: Batchbell, batch_id: str, url: str | None) -> None:
    """Raise in plain words where the server does not watch this batch, or is not there."""
    from batchbell.client import NothingFound

    if url is not None:
        client.watch(batch_id, url)
        return
    try:
        client.batch(batch_id)
    except NothingFound as error:
        raise type(error)(
            f"The server watches no batch {batch_id!r}. Watch it first:"
            f" batchbell watch {batch_id} --url URL, or pass --url here.",
            status=error.status,
            code=error.code,
        ) from error


See = Callable[["Batch"], None]


@contextlib.contextmanager
def showing(*ids: str) -> Iterator[See]:
    """Yields what to call with every sight of one of the batches. Writes to standard error."""
    target = console(stderr=True)
    with _bars(ids, target) if target.is_terminal else _lines(target) as see:
        yield see


@contextlib.contextmanager
def _bars(ids: Sequence[str], target: Console) -> Iterator[See]:
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
        tasks = {id: bar.add_task(escape(plain(id)), total=None, status="") for id in ids}

        def see(batch: Batch) -> None:
            counts = batch.request_counts
            bar.update(
                tasks[batch.id],
                total=counts.total if counts and counts.total else None,
                completed=counts.completed + counts.failed if counts else 0,
                status=escape(_status(batch)),
            )

        yield see


@contextlib.contextmanager
def _lines(target: Console) -> Iterator[See]:
    last: dict[str, str] = {}

    def see(batch: Batch) -> None:
        line = f"{plain(batch.id)}: {standing(batch)}"
        if line != last.get(batch.id):
            target.print(line, markup=False, soft_wrap=True)
            last[batch.id] = line

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
