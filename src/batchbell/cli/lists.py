"""`list`, `show` and `resend`: what there is, as tables for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, assert_never

import typer

from batchbell.cli.attempts import print_attempts
from batchbell.cli.connection import connected
from batchbell.cli.options import ApiKey, Json, Server, metadata_pairs
from batchbell.cli.output import (
    moment,
    print_facts,
    print_json,
    print_json_lines,
    print_table,
    say,
)
from batchbell.cli.replays import moment_of
from batchbell.cli.timeline import print_timeline

if TYPE_CHECKING:
    from batchbell.client import Batch, Batchbell, Delivery, Endpoint, Event, Submission, Watch

Look = tuple[Sequence[str], Callable[[Any], Sequence[object]]]
"""Column heads, and what makes a row of an item."""


def _batch_row(batch: Batch) -> Sequence[object]:
    extras = batch.batchbell
    return (
        batch.id,
        extras.status,
        extras.outcome,
        counted(batch),
        extras.account,
        moment(extras.registered_at),
        moment(extras.ended_at),
        extras.reason,
    )


def _watch_row(watch: Watch) -> Sequence[object]:
    events = " ".join(event.removeprefix("batch.") for event in watch.events)
    return watch.id, watch.batch_id, watch.url, events, moment(watch.created_at)


def _event_row(event: Event) -> Sequence[object]:
    return event.id, event.type, event.data.get("id"), moment(event.created_at)


def _delivery_row(delivery: Delivery) -> Sequence[object]:
    return (
        delivery.id,
        delivery.state,
        delivery.event_type,
        delivery.batch_id,
        delivery.attempt_count,
        delivery.last_status,
        moment(delivery.next_attempt_at),
        delivery.event_id,
        delivery.needs_you or delivery.reason or delivery.last_error,
    )


def _submission_row(submission: Submission) -> Sequence[object]:
    return (
        submission.id,
        submission.status,
        submission.outcome,
        counted(submission),
        submission.account,
        moment(submission.created_at),
        moment(submission.ended_at),
        submission.reason,
    )


def _endpoint_row(endpoint: Endpoint) -> Sequence[object]:
    events = " ".join(event.removeprefix("batch.") for event in endpoint.event_types)
    return (
        endpoint.id,
        "(watched)" if endpoint.implied else endpoint.name,
        endpoint.url,
        events,
        endpoint.state,
        moment(endpoint.state_since),
        endpoint.reason,
    )


TABLES: dict[str, Look] = {
    "batches": (
        ["batch", "status", "outcome", "requests", "account", "registered", "ended", "because"],
        _batch_row,
    ),
    "watches": (["watch", "batch", "url", "events", "made"], _watch_row),
    "events": (["event", "type", "about", "happened"], _event_row),
    "deliveries": (
        ["delivery", "state", "event", "batch", "tries", "HTTP", "next", "event id", "because"],
        _delivery_row,
    ),
    "submissions": (
        ["submission", "status", "outcome", "requests", "account", "made", "ended", "because"],
        _submission_row,
    ),
}
ENDPOINTS: Look = (
    ["endpoint", "name", "url", "events", "state", "since", "because"],
    _endpoint_row,
)


def counted(batch: Batch | Submission) -> str | None:
    """Done of total, and how many of these failed."""
    counts = batch.request_counts
    if counts is None:
        return None
    done = f"{counts.completed + counts.failed:,}/{counts.total:,}"
    return f"{done}, {counts.failed:,} failed" if counts.failed else done


def facts(thing: Any) -> Iterator[tuple[str, object]]:
    """Every field of an answer that says something, one by one; what is nested as `a.b`."""
    for name in thing.__struct_fields__:
        value = getattr(thing, name)
        if name == "attempts":
            continue
        if hasattr(value, "__struct_fields__"):
            yield from ((f"{name}.{inner}", inner_value) for inner, inner_value in facts(value))
        else:
            yield name, _fact(name, value)


TIMES = frozenset({"since", "state_since", "until"})
"""Fields that hold a time, beside those that end in `_at`."""


def _fact(name: str, value: object) -> object:
    if isinstance(value, bool) or value in (None, "", (), {}):
        return value if isinstance(value, bool) else None
    if isinstance(value, int | float) and (name.endswith("_at") or name in TIMES):
        return moment(value)
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    if isinstance(value, dict | list | tuple):
        return _as_json(value)
    return value


def _as_json(value: object) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()


LIMIT = 20
PAGE_MAX = 100


class Kind(StrEnum):
    """What can be listed."""

    BATCHES = "batches"
    WATCHES = "watches"
    EVENTS = "events"
    DELIVERIES = "deliveries"
    SUBMISSIONS = "submissions"


DELIVERED = {"delivered": True, "undelivered": False}

_TIMES = ("since", "until")
_OF_BATCH = ("id", "status", "outcome", "provider", "account", "model", "metadata", *_TIMES)
_OF_DELIVERY = ("status", "batch", "endpoint", "type", *_TIMES)
TAKES: dict[Kind, Sequence[str]] = {
    Kind.BATCHES: (*_OF_BATCH, "ended-since", "ended-until"),
    Kind.SUBMISSIONS: (*_OF_BATCH, "ended-since", "ended-until"),
    Kind.WATCHES: ("batch",),
    Kind.EVENTS: _OF_DELIVERY,
    Kind.DELIVERIES: _OF_DELIVERY,
}
"""By which options each may be chosen."""
OTHERWISE = {"batch": "batch_id", "endpoint": "endpoint_id"}
"""What the client calls options otherwise."""


Standing = Annotated[
    str | None,
    typer.Option(
        "--status",
        metavar="STATUS",
        help="Only these. Batches and submissions: a status such as in_progress. Deliveries:"
        " pending, delivered, exhausted or held. Events: delivered or undelivered.",
    ),
]
IdBegins = Annotated[
    str | None,
    typer.Option("--id", metavar="ID", help="Batches and submissions: how their ids begin."),
]
Outcome = Annotated[
    str | None,
    typer.Option(
        "--outcome",
        metavar="OUTCOME",
        help="Batches and submissions: succeeded, partial or none.",
    ),
]
OfProvider = Annotated[
    str | None,
    typer.Option("--provider", metavar="NAME", help="Batches and submissions: of this provider."),
]
OfAccount = Annotated[
    str | None,
    typer.Option("--account", metavar="NAME", help="Batches and submissions: of this account."),
]
OfModel = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help="Batches and submissions: of this model."),
]
Pairs = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata",
        metavar="KEY=VALUE",
        help="Batches and submissions: with this pair in their metadata; repeat for more.",
    ),
]
EndedSince = Annotated[
    str | None,
    typer.Option(
        "--ended-since", metavar="TIME", help="Batches and submissions: ended from then on."
    ),
]
EndedUntil = Annotated[
    str | None,
    typer.Option("--ended-until", metavar="TIME", help="Batches and submissions: ended before."),
]
OfBatch = Annotated[
    str | None,
    typer.Option(
        "--batch", metavar="BATCH_ID", help="Watches, events and deliveries: of this batch."
    ),
]
ForEndpoint = Annotated[
    str | None,
    typer.Option("--endpoint", metavar="ID", help="Events and deliveries: for this endpoint."),
]
OfType = Annotated[
    str | None,
    typer.Option("--type", metavar="TYPE", help="Events and deliveries: such as batch.completed."),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="All but watches: made from then on: 2h, 3d, or 2026-08-01T12:00.",
    ),
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="All but watches: made before.")
]
Limit = Annotated[int, typer.Option("--limit", metavar="NUMBER", min=1, help="How many at most.")]
Every = Annotated[bool, typer.Option("--all", help="All of them, whatever --limit says.")]
Kinds = Annotated[
    Kind,
    typer.Argument(metavar="KIND", help="batches, watches, events, deliveries or submissions."),
]


def list_(
    kind: Kinds = Kind.BATCHES,
    *,
    status: Standing = None,
    id_: IdBegins = None,
    outcome: Outcome = None,
    provider: OfProvider = None,
    account: OfAccount = None,
    model: OfModel = None,
    metadata: Pairs = None,
    ended_since: EndedSince = None,
    ended_until: EndedUntil = None,
    batch: OfBatch = None,
    endpoint: ForEndpoint = None,
    type_: OfType = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = LIMIT,
    all_: Every = False,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """List batches, watches, events, deliveries or submissions, the newest first."""
    most = None if all_ else limit
    asked = {
        "status": status,
        "id": id_,
        "outcome": outcome,
        "provider": provider,
        "account": account,
        "model": model,
        "metadata": metadata_pairs(metadata),
        "ended-since": moment_of(ended_since, "--ended-since"),
        "ended-until": moment_of(ended_until, "--ended-until"),
        "batch": batch,
        "endpoint": endpoint,
        "type": type_,
        "since": moment_of(since, "--since"),
        "until": moment_of(until, "--until"),
    }
    wanted = {name: value for name, value in asked.items() if value is not None}
    with connected(server, api_key) as client:
        items = _items(client, kind, wanted, min(most or PAGE_MAX, PAGE_MAX))
        if json:
            print_json_lines(islice(items, most))
            return
        found = list(islice(items, most))
        more = most is not None and next(items, None) is not None
    heads, row = TABLES[kind.value]
    print_table(heads, map(row, found), empty=f"No {kind.value}.")
    if more:
        say(f"There are more: --limit {limit * 10}, or --all.")


def _items(
    client: Batchbell, kind: Kind, wanted: Mapping[str, Any], page_size: int
) -> Iterator[Any]:
    for name in wanted:
        if name not in TAKES[kind]:
            options = ", ".join(f"--{one}" for one in TAKES[kind])
            raise typer.BadParameter(
                f"{kind} cannot be chosen by {name}, but by {options}.", param_hint=f"--{name}"
            )
    how: dict[str, Any] = {
        OTHERWISE.get(name, name.replace("-", "_")): value for name, value in wanted.items()
    }
    how["page_size"] = page_size
    match kind:
        case Kind.BATCHES:
            return client.batches(**how)
        case Kind.SUBMISSIONS:
            return client.submissions(**how)
        case Kind.WATCHES:
            return client.list_watches(**how)
        case Kind.DELIVERIES:
            return client.deliveries(state=how.pop("status", None), **how)
        case Kind.EVENTS:
            return client.events(delivery_success=_success(how.pop("status", None)), **how)
        case _:
            assert_never(kind)


def _success(status: str | None) -> bool | None:
    if status not in (None, *DELIVERED):
        raise typer.BadParameter("Events are delivered or undelivered.", param_hint="--status")
    return None if status is None else DELIVERED[status]


Story = Annotated[
    bool, typer.Option("--timeline", help="Of a batch: its timeline alone, also as --json.")
]


def show(
    identity: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="A batch's id, or one that begins evt_, dlv_, wat_ or rpl_."
        ),
    ],
    story: Story = False,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Show one batch (with its timeline), event, delivery (with its attempts), watch or replay."""
    with connected(server, api_key) as client:
        prefix = identity.partition("_")[0]
        ways: dict[str, Any] = {
            "evt": client.event,
            "dlv": client.delivery,
            "wat": client.get_watch,
            "rpl": client.get_replay,
        }
        is_batch = prefix not in ways
        if story and not is_batch:
            raise typer.BadParameter("Only a batch has one.", param_hint="--timeline")
        timeline = client.timeline(identity) if story or (is_batch and not json) else None
        found = None if story else ways.get(prefix, client.batch)(identity)
    if json:
        print_json(found or timeline)
        return
    if found is not None:
        print_facts(facts(found))
    if timeline is not None:
        if found is not None:
            print()
        print_timeline(timeline)
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
    heads, row = TABLES["deliveries"]
    print_table(heads, map(row, again), empty="Nobody was to hear of this event.")
