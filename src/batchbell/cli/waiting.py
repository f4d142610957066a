"""`wait`: until a batch has ended. The exit code tells how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from batchbell.cli.endings import Code, complain
from batchbell.cli.options import ApiKey, BatchId, Json, Server, WebhookUrl
from batchbell.cli.printing import print_json
from batchbell.cli.progress import showing, standing
from batchbell.cli.reach import connected

if TYPE_CHECKING:
    from batchbell.client import Batch, Batchbell

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
