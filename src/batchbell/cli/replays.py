"""`replay`: sending many deliveries again, with a bar that shows how far it is."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchbell.cli.connection import connected
from batchbell.cli.errors import Code
from batchbell.cli.options import ApiKey, Json, Server
from batchbell.cli.output import console, print_json, say

if TYPE_CHECKING:
    from rich.console import Console

    from batchbell.client import Batchbell, Replay, ReplayCounts


LOOK_SECONDS = 0.5
AGO = re.compile(r"(\d+)(s|m|h|d)")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

See = Callable[["Replay"], None]


class Status(StrEnum):
    """Which deliveries are sent again."""

    FAILED = "failed"
    HELD = "held"
    MISSING = "missing"
    ALL = "all"


EventId = Annotated[
    str | None, typer.Argument(metavar="EVENT_ID", help="Only this event, all of its deliveries.")
]
Which = Annotated[
    Status | None,
    typer.Option(
        "--status",
        metavar="STATUS",
        help="failed (unless an event is named), held, missing or all.",
    ),
]
Endpoint = Annotated[
    str | None, typer.Option("--endpoint", metavar="ID", help="Only to this endpoint.")
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="Events from then on: 2h, 3d, or 2026-08-01T12:00."
    ),
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Events before then.")]
Types = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="TYPE", help="Such as batch.completed; repeat for more."),
]
AsNew = Annotated[
    bool, typer.Option("--as-new", help="With new ids, for receivers that would ignore the old.")
]
Enable = Annotated[
    bool, typer.Option("--enable", help="Enable disabled endpoints that it concerns.")
]
Pace = Annotated[
    float | None,
    typer.Option("--pace", metavar="NUMBER", help="Deliveries a second; 50 by default."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Count what would be sent, and send nothing.")
]
Watching = Annotated[
    bool, typer.Option("--wait", help="Show how far it is, until all is under way.")
]


def replay(
    event_id: EventId = None,
    *,
    status: Which = None,
    endpoint: Endpoint = None,
    since: Since = None,
    until: Until = None,
    type_: Types = None,
    as_new: AsNew = False,
    enable: Enable = False,
    pace: Pace = None,
    dry_run: DryRun = False,
    wait: Watching = False,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Send many deliveries again, each with the full schedule; or one event.

    Exits with 0 when the replay was begun, or with --wait when it has ended; with 1 when somebody
    cancelled it meanwhile. Ctrl-C ends the watching, and not the replay.
    """
    wanted: dict[str, Any] = {
        "status": (status or (Status.ALL if event_id else Status.FAILED)).value,
        "endpoint_id": endpoint,
        "event_id": event_id,
        "since": moment_of(since, "--since"),
        "until": moment_of(until, "--until"),
        "types": type_ or None,
        "enable": enable,
    }
    with connected(server, api_key) as client:
        if dry_run:
            _say_counts(client.count_replay(**wanted), json=json)
            return
        made = client.replay(**wanted, as_new=as_new, pace=pace)
        if wait:
            made = _watched(client, made)
    _say(made, json=json)
    if made.state == "cancelled":
        raise typer.Exit(Code.FAILED)


def moment_of(text: str | None, option: str, *, now: float | None = None) -> float | None:
    """Seconds since the epoch. `2h` is two hours ago; a date without a zone is in this one's."""
    if text is None:
        return None
    if ago := AGO.fullmatch(text):
        return max(0.0, (time.time() if now is None else now) - int(ago[1]) * SECONDS[ago[2]])
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        message = f"{text!r} is no time: say 30m, 2h, 3d, or 2026-08-01T12:00."
        raise typer.BadParameter(message, param_hint=option) from None


def _watched(client: Batchbell, made: Replay) -> Replay:
    with _showing(made) as see:
        see(made)
        while made.state == "running":
            time.sleep(LOOK_SECONDS)
            made = client.get_replay(made.id)
            see(made)
    return made


def _say(made: Replay, *, json: bool) -> None:
    if json:
        print_json(made)
        return
    print(f"{made.id}: {made.state}, {standing(made)}.")
    if made.state == "running":
        say(f"It goes on in the server: batchbell show {made.id}")


def _say_counts(counts: ReplayCounts, *, json: bool) -> None:
    if json:
        print_json(counts)
        return
    print(f"{counts.total:,} would be sent again.")
    if counts.skipped:
        say(f"{counts.skipped:,} more are of disabled endpoints: --enable takes them too.")


def standing(made: Replay) -> str:
    """How far it is, in a few words."""
    done = f"{made.done:,} of {made.total:,} sent again"
    return f"{done}, {made.skipped:,} skipped" if made.skipped else done


@contextlib.contextmanager
def _showing(made: Replay) -> Iterator[See]:
    target = console(stderr=True)
    with _bar(made, target) if target.is_terminal else _lines(target) as see:
        yield see


@contextlib.contextmanager
def _bar(made: Replay, target: Console) -> Iterator[See]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=target) as bar:
        task = bar.add_task(made.id, total=made.total)
        yield lambda seen: bar.update(task, total=max(seen.total, seen.done), completed=seen.done)


@contextlib.contextmanager
def _lines(target: Console) -> Iterator[See]:
    last = ""

    def see(seen: Replay) -> None:
        nonlocal last
        line = f"{seen.id}: {standing(seen)}"
        if line != last:
            target.print(line, markup=False, soft_wrap=True)
            last = line

    yield see
