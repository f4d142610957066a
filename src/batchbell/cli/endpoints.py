"""`endpoints`: webhooks that hear of every batch of the project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchbell.cli import lists
from batchbell.cli.attempts import print_attempts
from batchbell.cli.connection import connected
from batchbell.cli.options import ApiKey, Json, Results, Server, Yes
from batchbell.cli.output import (
    confirm,
    print_facts,
    print_json,
    print_json_lines,
    print_table,
    say,
)

if TYPE_CHECKING:
    from batchbell.client import Endpoint, EndpointTest

EndpointId = Annotated[str, typer.Argument(metavar="ENDPOINT_ID", help="The endpoint's id: whe_….")]
Events = Annotated[
    list[str] | None,
    typer.Option(
        "--event",
        metavar="TYPE",
        help="An event to receive; repeat for more. Default: completed, failed, expired and"
        " cancelled.",
    ),
]
Description = Annotated[
    str | None, typer.Option("--description", metavar="TEXT", help="A note of your own.")
]
Accounts = Annotated[
    list[str] | None,
    typer.Option("--account", metavar="NAME", help="Only batches of this account; repeatable."),
]
Pairs = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata",
        metavar="KEY=VALUE",
        help="Only batches whose own metadata holds this; repeatable.",
    ),
]
Headers = Annotated[
    list[str] | None,
    typer.Option("--header", metavar="'NAME: VALUE'", help="A header to send along; repeatable."),
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", help="Wall clock for one call, 5 to 30."),
]
Schedule = Annotated[
    str | None,
    typer.Option(
        "--schedule", metavar="SECONDS,…", help="Waits before each retry, such as 5,60,3600."
    ),
]
RateLimit = Annotated[
    float | None,
    typer.Option("--rate-limit", metavar="CALLS", help="Calls a second at most, 0.01 to 1,000."),
]
Ordered = Annotated[
    bool | None,
    typer.Option(
        "--ordered/--no-ordered",
        help="Call it one by one, in the order of events: what fails holds up what follows.",
    ),
]


def list_(
    implied: Annotated[bool, typer.Option("--implied", help="Those of watched URLs too.")] = False,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """List the endpoints, the newest first."""
    with connected(server, api_key) as client:
        found = list(client.endpoints(implied=implied))
    if json:
        print_json_lines(found)
        return
    heads, row = lists.ENDPOINTS
    print_table(heads, map(row, found), empty="No endpoints.")


def create(
    *,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="The webhook to call.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="For your own list.")],
    event: Events = None,
    description: Description = None,
    account: Accounts = None,
    metadata: Pairs = None,
    header: Headers = None,
    timeout: Timeout = None,
    schedule: Schedule = None,
    rate_limit: RateLimit = None,
    ordered: Ordered = None,
    results: Results = None,
    secret: Annotated[
        str | None,
        typer.Option("--secret", metavar="SECRET", help="A whsec_… secret to bring along."),
    ] = None,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Make an endpoint that hears of the whole project. Its secret is printed this once."""
    fields = _fields(
        event=event,
        description=description,
        account=account,
        metadata=metadata,
        header=header,
        timeout=timeout,
        schedule=schedule,
        rate_limit=rate_limit,
        ordered=ordered,
        results=results,
    )
    with connected(server, api_key) as client:
        made = client.create_endpoint(url, name, signing_secret=secret, **fields)
    _print_secret(made, json=json)


def update(
    endpoint_id: EndpointId,
    *,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="Another webhook to call.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Another name.")
    ] = None,
    event: Events = None,
    description: Description = None,
    account: Accounts = None,
    metadata: Pairs = None,
    header: Headers = None,
    timeout: Timeout = None,
    schedule: Schedule = None,
    rate_limit: RateLimit = None,
    ordered: Ordered = None,
    results: Results = None,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Change what is named of an endpoint; the rest stays."""
    changes = _fields(
        event=event,
        description=description,
        account=account,
        metadata=metadata,
        header=header,
        timeout=timeout,
        schedule=schedule,
        rate_limit=rate_limit,
        ordered=ordered,
        results=results,
    )
    changes |= {key: value for key, value in (("url", url), ("name", name)) if value}
    with connected(server, api_key) as client:
        _print(client.update_endpoint(endpoint_id, **changes), json=json)


def show(
    endpoint_id: EndpointId, json: Json = False, server: Server = None, api_key: ApiKey = None
) -> None:
    """Show an endpoint: its settings, its state, since when and why."""
    with connected(server, api_key) as client:
        _print(client.endpoint(endpoint_id), json=json)


def delete(
    endpoint_id: EndpointId,
    yes: Yes = False,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Delete an endpoint and its pending deliveries. Asks first."""
    with connected(server, api_key) as client:
        if not yes:
            found = client.endpoint(endpoint_id)
            lost = "Its pending deliveries are dropped."
            confirm(f"Delete endpoint {endpoint_id} ({found.url})? {lost}", yes=yes)
        client.delete_endpoint(endpoint_id)
    if json:
        print_json({"id": endpoint_id, "deleted": True})
    else:
        print(f"Endpoint {endpoint_id} is gone.")


def rotate(
    endpoint_id: EndpointId,
    keep_old: Annotated[
        float,
        typer.Option(
            "--keep-old", metavar="SECONDS", help="How long the old secrets go on signing."
        ),
    ] = 86_400.0,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Sign with a new secret. It is printed this once."""
    with connected(server, api_key) as client:
        rotated = client.rotate_secret(endpoint_id, keep_old_seconds=keep_old)
    _print_secret(rotated, json=json)


def try_(
    endpoint_id: EndpointId,
    event: Annotated[
        str, typer.Option("--event", metavar="TYPE", help="What the test event tells of.")
    ] = "batch.completed",
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Send a signed test event now, once, and show what came of it."""
    with connected(server, api_key) as client:
        show_test(client.test_endpoint(endpoint_id, event_type=event), json=json)


def show_test(result: EndpointTest, *, json: bool) -> None:
    """What came of a test event. Exits with 1 unless it was taken."""
    if json:
        print_json(result)
    else:
        print_attempts([result.attempt])
    if result.attempt.result != "delivered":
        raise typer.Exit(1)


def disable(
    endpoint_id: EndpointId, json: Json = False, server: Server = None, api_key: ApiKey = None
) -> None:
    """Have an endpoint called no more until it is enabled; what waits for it is held."""
    with connected(server, api_key) as client:
        _print(client.disable_endpoint(endpoint_id), json=json)


def enable(
    endpoint_id: EndpointId, json: Json = False, server: Server = None, api_key: ApiKey = None
) -> None:
    """Let a disabled endpoint be called again, or try one behind an open breaker now."""
    with connected(server, api_key) as client:
        _print(client.enable_endpoint(endpoint_id), json=json)


def _fields(
    *,
    event: list[str] | None,
    description: str | None,
    account: list[str] | None,
    metadata: list[str] | None,
    header: list[str] | None,
    timeout: float | None,
    schedule: str | None,
    rate_limit: float | None,
    ordered: bool | None,
    results: str | None,
) -> dict[str, Any]:
    """The fields that were named, and no others."""
    named = {
        "event_types": event or None,
        "description": description,
        "accounts": account or None,
        "metadata": dict(_pair(text, "=", "--metadata") for text in metadata or ()) or None,
        "headers": dict(_pair(text, ":", "--header") for text in header or ()) or None,
        "timeout_seconds": timeout,
        "schedule": None if schedule is None else _waits(schedule),
        "rate_limit": rate_limit,
        "ordered": ordered,
        "results": results,
    }
    return {name: value for name, value in named.items() if value is not None}


def _pair(text: str, sign: str, option: str) -> tuple[str, str]:
    name, found, value = text.partition(sign)
    if not found or not name:
        raise typer.BadParameter(f"{text!r} has no {sign!r} after a name.", param_hint=option)
    return name, value.strip() if sign == ":" else value


def _waits(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} are not seconds with commas between.", param_hint="--schedule"
        ) from None


def _print(endpoint: Endpoint, *, json: bool) -> None:
    if json:
        print_json(endpoint)
    else:
        print_facts(lists.facts(endpoint))


def _print_secret(endpoint: Endpoint, *, json: bool) -> None:
    if json:
        print_json(endpoint)
        return
    print(endpoint.signing_secret)
    say(f"This is the secret of endpoint {endpoint.id}, shown this once.")
