"""`expunge`: remove what is kept of a batch's payloads."""

from __future__ import annotations

from typing import Annotated

import typer

from batchbell.cli import describing
from batchbell.cli.options import ApiKey, BatchId, Json, Server
from batchbell.cli.printing import print_facts, print_json
from batchbell.cli.reach import connected


def expunge(
    batch_id: BatchId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Remove the payloads of an ended batch: events, metadata, what receivers answered."""
    if not yes:
        typer.confirm(f"Remove the payloads of {batch_id}? They cannot be had again.", abort=True)
    with connected(server, api_key) as client:
        expunged = client.expunge(batch_id)
    if json:
        print_json(expunged)
    else:
        print_facts(describing.facts(expunged))
