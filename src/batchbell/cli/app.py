"""Every command, in the order in which `batchbell --help` lists them."""

from __future__ import annotations

from typing import Annotated

import typer

from batchbell import __version__
from batchbell.cli import (
    accounts,
    batches,
    demo,
    doctor,
    endpoints,
    keys,
    listen,
    lists,
    projects,
    replays,
    results,
    server,
    signatures,
    submissions,
    watches,
)
from batchbell.cli.errors import Commands

RUNNING = "Run it"
WATCHING = "Watch batches"
ACCESS = "Access"
TRYING = "Try it"

app = typer.Typer(
    name="batchbell",
    cls=Commands,
    help="Batchbell tells you when a batch is done.\n\n"
    "Settings come from the environment; the first two that you need are OPENAI_API_KEY and"
    " DATABASE_PATH. `batchbell demo` shows all of it without a key.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"batchbell {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


keys_app = typer.Typer(
    name="keys",
    help="API keys: make, list, revoke. And rekey, for the master key.",
    no_args_is_help=True,
)
keys_app.command("create")(keys.create_key)
keys_app.command("list")(keys.list_keys)
keys_app.command("revoke")(keys.revoke_key)
keys_app.command("rekey")(keys.rekey)

sources = typer.Typer(
    name="accounts",
    help="Accounts: where batches are watched, and under whose credentials.",
    no_args_is_help=True,
)
sources.command("add")(accounts.add)
sources.command("list")(accounts.list_)
sources.command("show")(accounts.show)
sources.command("update")(accounts.update)
sources.command("test")(accounts.try_)
sources.command("pause")(accounts.pause)
sources.command("resume")(accounts.resume)
sources.command("remove")(accounts.remove)

tenants = typer.Typer(
    name="projects",
    help="Projects: each with keys, accounts, endpoints and batches of its own.",
    no_args_is_help=True,
)
tenants.command("create")(projects.create)
tenants.command("list")(projects.list_)

hooks = typer.Typer(
    name="endpoints",
    help="Endpoints: webhooks that hear of every batch of the project.",
    no_args_is_help=True,
)
hooks.command("list")(endpoints.list_)
hooks.command("create")(endpoints.create)
hooks.command("show")(endpoints.show)
hooks.command("update")(endpoints.update)
hooks.command("delete")(endpoints.delete)
hooks.command("rotate")(endpoints.rotate)
hooks.command("test")(endpoints.try_)
hooks.command("disable")(endpoints.disable)
hooks.command("enable")(endpoints.enable)

app.command("serve", rich_help_panel=RUNNING)(server.serve)
app.command("worker", rich_help_panel=RUNNING)(server.worker)
app.command("migrate", rich_help_panel=RUNNING)(server.migrate)
app.command("doctor", rich_help_panel=RUNNING)(doctor.doctor)
app.command("submit", rich_help_panel=WATCHING)(submissions.submit)
app.command("cancel", rich_help_panel=WATCHING)(submissions.cancel)
app.command("watch", rich_help_panel=WATCHING)(watches.watch)
app.command("unwatch", rich_help_panel=WATCHING)(watches.unwatch)
app.command("wait", rich_help_panel=WATCHING)(batches.wait)
app.command("list", rich_help_panel=WATCHING)(lists.list_)
app.command("show", rich_help_panel=WATCHING)(lists.show)
app.command("results", rich_help_panel=WATCHING)(results.results)
app.command("resend", rich_help_panel=WATCHING)(lists.resend)
app.command("replay", rich_help_panel=WATCHING)(replays.replay)
app.command("expunge", rich_help_panel=WATCHING)(batches.expunge)
app.add_typer(hooks, rich_help_panel=WATCHING)
app.command("secret", rich_help_panel=ACCESS)(keys.secret)
app.add_typer(keys_app, rich_help_panel=ACCESS)
app.add_typer(sources, rich_help_panel=ACCESS)
app.add_typer(tenants, rich_help_panel=ACCESS)
app.command("demo", rich_help_panel=TRYING)(demo.demo)
app.command("sandbox", rich_help_panel=TRYING)(demo.sandbox)
app.command("listen", rich_help_panel=TRYING)(listen.listen)
app.command("trigger", rich_help_panel=TRYING)(listen.trigger)
app.command("sign", rich_help_panel=TRYING)(signatures.sign)
app.command("verify", rich_help_panel=TRYING)(signatures.verify)
