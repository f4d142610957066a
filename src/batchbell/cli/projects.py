"""`projects`: what the operator makes for others."""

from __future__ import annotations

from typing import Annotated

import typer

from batchbell.cli.connection import connected
from batchbell.cli.options import ApiKey, Json, Server
from batchbell.cli.output import moment, print_json, print_json_lines, print_table, say


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits and . _ : @ = + -.")],
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Make a project: keys, accounts, endpoints and batches of its own."""
    with connected(server, api_key) as client:
        made = client.create_project(name)
    if json:
        print_json(made)
        return
    print(made.id)
    say(f"Now make a key for it: batchbell keys create --project {name} --name NAME")


def list_(json: Json = False, server: Server = None, api_key: ApiKey = None) -> None:
    """List the projects, the oldest first."""
    with connected(server, api_key) as client:
        found = client.projects()
    if json:
        print_json_lines(found)
        return
    rows = [(one.id, one.name, moment(one.created_at)) for one in found]
    print_table(["id", "name", "made"], rows, empty="No projects.")
