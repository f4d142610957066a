"""`watch`: have a webhook called when batches end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batchbell.cli.connection import connected
from batchbell.cli.options import Account, ApiKey, Json, Results, Server, metadata_pairs
from batchbell.cli.output import plain, print_json_lines, print_table

if TYPE_CHECKING:
    from batchbell.client import Batchbell, Watch, WatchSpec


BULK_MAX = 1000
"""Watches that one call may carry."""
TABLE_MAX = 20


def watch(
    batch_ids: Annotated[
        list[str] | None, typer.Argument(metavar="BATCH_ID", help="The batches' ids.")
    ] = None,
    *,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="The webhook to call.")],
    file: Annotated[
        str | None,
        typer.Option(
            "--file", metavar="FILE", help="Take ids from a file, one a line; - is standard input."
        ),
    ] = None,
    event: Annotated[
        list[str] | None,
        typer.Option(
            "--event",
            metavar="TYPE",
            help="An event to receive, such as batch.in_progress; repeat for more."
            " Default: completed, failed, expired and cancelled.",
        ),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata", metavar="KEY=VALUE", help="Comes back with the webhook; repeat for more."
        ),
    ] = None,
    account: Account = None,
    results: Results = None,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Have a webhook called when batches end. The same batch and URL again is the same watch."""
    from batchbell.client import WatchSpec

    pairs = metadata_pairs(metadata)
    ids = [*(batch_ids or []), *(_ids_in(file) if file else [])]
    if not ids:
        raise typer.BadParameter("Name at least one batch, or a --file of ids.")
    specs = [WatchSpec(id, url, event or None, pairs, account, results) for id in ids]
    with connected(server, api_key) as client:
        made: list[Watch] = []
        for chunk in chunks(specs):
            made += client.watch_many(chunk)
    if json:
        print_json_lines(made)
        return
    if len(made) <= TABLE_MAX:
        rows = [(one.batch_id, one.id, one.url) for one in made]
        print_table(["batch", "watch", "url"], rows, empty="")
    print(f"Watching {len(made):,} {'batch' if len(made) == 1 else 'batches'}.")


def unwatch(
    ids: Annotated[
        list[str],
        typer.Argument(metavar="ID", help="Watches' ids, wat_…, or batches': all their watches."),
    ],
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="URL", help="Of a batch, only the watch for this webhook."),
    ] = None,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Forget watches, and the deliveries that they were still to make."""
    with connected(server, api_key) as client:
        gone = [watch for id in ids for watch in _watches_of(client, id, url)]
        for watch in gone:
            client.delete_watch(watch.id)
    if json:
        print_json_lines({"id": watch.id, "deleted": True} for watch in gone)
        return
    for watch in gone:
        print(f"{watch.batch_id} is no longer watched for {plain(watch.url)}.")


def _watches_of(client: Batchbell, id: str, url: str | None) -> list[Watch]:
    """The watch of this id, or those of the batch. Raises NothingFound where there is none."""
    from batchbell.client import NothingFound

    if id.startswith("wat_"):
        return [client.get_watch(id)]
    found = [one for one in client.list_watches(batch_id=id) if url in (None, one.url)]
    if not found:
        what = f"batch {id!r}" + ("" if url is None else f" for {url}")
        raise NothingFound(f"Nobody watches {what}. See `batchbell list watches`.", status=404)
    return found


def chunks(specs: Sequence[WatchSpec]) -> Iterator[Sequence[WatchSpec]]:
    """As many at a time as one call takes."""
    for start in range(0, len(specs), BULK_MAX):
        yield specs[start : start + BULK_MAX]


def _ids_in(file: str) -> list[str]:
    """The lines of a file that hold something; `#` begins a remark."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}", param_hint="--file") from error
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
