"""Starting the processes: `serve`, `worker`; and `migrate`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchbell.cli.options import DatabasePath, DatabaseUrl, Json
from batchbell.cli.output import print_json, say

if TYPE_CHECKING:
    from batchbell.runtime import Runtime
    from batchbell.settings import Settings

ACCOUNTS_SHOWN = 5


def serve(
    host: Annotated[str | None, typer.Option(metavar="HOST", help="As the setting HOST.")] = None,
    port: Annotated[int | None, typer.Option(metavar="PORT", help="As the setting PORT.")] = None,
    database_path: DatabasePath = None,
    database_url: DatabaseUrl = None,
    no_workers: Annotated[
        bool,
        typer.Option("--no-workers", help="Only answer HTTP; `batchbell worker` does the rest."),
    ] = False,
) -> None:
    """Serve HTTP, watch batches and deliver webhooks, until Ctrl-C or SIGTERM."""
    settings = settings_of(
        host=host, port=port, database_path=database_path, database_url=database_url
    )
    from batchbell import runtime

    def greet(running: Runtime, url: str) -> None:
        _announce(settings, greeting(running, url, workers=not no_workers))

    _run(runtime.serve(settings, workers=not no_workers, on_ready=greet))


def worker(database_url: DatabaseUrl = None) -> None:
    """Watch and deliver beside other processes, on PostgreSQL, until Ctrl-C or SIGTERM."""
    settings = settings_of(database_url=database_url)
    from batchbell import runtime

    def greet(running: Runtime) -> None:
        _announce(settings, f"Working. {watched(running)} Ctrl-C ends it.")

    _run(runtime.work(settings, on_ready=greet))


def migrate(
    database_path: DatabasePath = None, database_url: DatabaseUrl = None, json: Json = False
) -> None:
    """Bring the database's schema up to date. `serve` and `worker` do so by themselves."""
    settings = settings_of(database_path=database_path, database_url=database_url)
    revision = asyncio.run(_migrated(settings))
    if json:
        print_json({"revision": revision})
    else:
        print(f"The database is at schema {revision}.")


async def _migrated(settings: Settings) -> str:
    from batchbell.cli.connection import opened
    from batchbell.storage import opening

    async with opened(settings) as store:
        return await store.read(opening.check)


def settings_of(**overrides: Any) -> Settings:
    """The settings with what was given on the command line, and logging as they say.

    A path that is given here wins over a DATABASE_URL of the environment.
    """
    from batchbell.observability import configure_logging
    from batchbell.settings import load_settings

    if overrides.get("database_path") and not overrides.get("database_url"):
        overrides["database_url"] = f"sqlite:///{overrides['database_path']}"
    settings = load_settings(**overrides)
    configure_logging(level=settings.log_level, format=settings.log_format)
    return settings


def _run(main: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where there is one."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        asyncio.run(main)
        return
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main)


def _announce(settings: Settings, line: str) -> None:
    """Where all of the log is asked for as JSON, this line is too."""
    if settings.log_format == "json":
        import structlog

        structlog.get_logger("batchbell.cli").info("ready", says=line)
    else:
        say(line)


def greeting(running: Runtime, url: str, *, workers: bool) -> str:
    """Where we are, what is watched, and what the reader may want to do."""
    parts = [f"Batchbell serves {url} ({url}/docs)."]
    parts.append(watched(running))
    if not workers:
        parts.append("No workers here: `batchbell worker` watches and delivers.")
    if running.access.local:
        parts.append(
            "Local mode: no API key is needed, and only this machine may call;"
            " `batchbell keys create --name NAME` ends it."
        )
    return " ".join([*parts, "Ctrl-C ends it."])


def watched(running: Runtime) -> str:
    """Which accounts are watched, or how to have one."""
    from batchbell.providers.profiles import DEFAULT

    if not running.accounts:
        return f"Nothing is watched: set {DEFAULT.key_variable} and start again, or add an account."
    seconds = running.settings.poll_interval_seconds
    shown = [f"{a.label} at {a.base_url}" for a in running.accounts[:ACCOUNTS_SHOWN]]
    more = len(running.accounts) - len(shown)
    accounts = ", ".join([*shown, *([f"{more} more"] if more else [])])
    return f"Watching {accounts}, every {seconds:g} s."
