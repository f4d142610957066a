"""Reading back: `list`, `show`; and `resend`."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchbell.cli import describing
from batchbell.cli.attempts import print_attempts
from batchbell.cli.options import ApiKey, Json, Server
from batchbell.cli.printing import print_facts, print_json, print_json_lines, print_table, tell
from batchbell.cli.reach import connected

if TYPE_CHECKING:
    from batchbell.client import Batchbell

LIMIT = 20
PAGE_MAX = 100


class Kind(StrEnum):
    """What can be listed."""

    BATCHES = "batches"
    WATCHES = "watches"
    EVENTS = "events"
    DELIVERIES = "deliveries"


DELIVERED = {"delivered": True, "undelivered": False}


def list_(
    kind: Annotated[
        Kind, typer.Argument(metavar="KIND", help="batches, watches, events or deliveries.")
    ] = Kind.BATCHES,
    *,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only these. Batches: a status such as in_progress. Deliveries: pending,"
            " delivered, exhausted or held. Events: delivered or undelivered.",
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option("--batch", metavar="BATCH_ID", help="Only watches or events of this batch."),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="NUMBER", min=1, help="How many at most.")
    ] = LIMIT,
    all_: Annotated[
        bool, typer.Option("--all", help="All of them, whatever --limit says.")
    ] = False,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """List batches, watches, events or deliveries, the newest first."""
    most = None if all_ else limit
    with connected(server, api_key) as client:
        items = _items(client, kind, status, batch, min(most or PAGE_MAX, PAGE_MAX))
        if json:
            print_json_lines(islice(items, most))
            return
        found = list(islice(items, most))
        more = most is not None and next(items, None) is not None
    heads, row = describing.TABLES[kind.value]
    print_table(heads, map(row, found), empty=f"No {kind.value}.")
    if more:
        tell(f"There are more: --limit {limit * 10}, or --all.")


def _items(
    client: Batchbell, kind: Kind, status: str | None, batch: str | None, page_size: int
) -> Iterator[Any]:
    if batch is not None and kind not in (Kind.WATCHES, Kind.EVENTS):
        raise typer.BadParameter(f"{kind} cannot be chosen by batch.", param_hint="--batch")
    if kind is Kind.BATCHES:
        return client.batches(status=status, page_size=page_size)
    if kind is Kind.DELIVERIES:
        return client.deliveries(state=status, page_size=page_size)
    if kind is Kind.WATCHES:
        if status is not None:
            raise typer.BadParameter("Watches have no status.", param_hint="--status")
        return client.list_watches(batch_id=batch, page_size=page_size)
    if status is not None and status not in DELIVERED:
        raise typer.BadParameter("Events are delivered or undelivered.", param_hint="--status")
    success = None if status is None else DELIVERED[status]
    return client.events(batch_id=batch, delivery_success=success, page_size=page_size)


def show(
    identity: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="A batch's id, or one that begins evt_, dlv_, wat_ or rpl_."
        ),
    ],
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Show one batch, event, delivery (with its attempts), watch or replay."""
    with connected(server, api_key) as client:
        prefix = identity.partition("_")[0]
        ways: dict[str, Any] = {
            "evt": client.event,
            "dlv": client.delivery,
            "wat": client.get_watch,
            "rpl": client.get_replay,
        }
        found = ways.get(prefix, client.batch)(identity)
    if json:
        print_json(found)
        return
    print_facts(describing.facts(found))
    attempts = getattr(found, "attempts", None)
    if attempts:
        print()
        print_attempts(attempts)


def resend(
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="The event's id: evt_….")],
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", metavar="ID", help="Only to this endpoint. Default: to all."),
    ] = None,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Deliver an event again."""
    with connected(server, api_key) as client:
        again = client.resend(event_id, endpoint_id=endpoint)
    if json:
        print_json_lines(again)
        return
    heads, row = describing.TABLES["deliveries"]
    print_table(heads, map(row, again), empty="Nobody was to hear of this event.")
