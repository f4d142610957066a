"""`accounts`: where batches are watched, and under whose credentials."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from batchbell.cli.connection import connected
from batchbell.cli.options import ApiKey, Json, Server
from batchbell.cli.output import (
    moment,
    print_facts,
    print_json,
    print_json_lines,
    print_table,
    say,
)

if TYPE_CHECKING:
    from batchbell.client import Account

Name = Annotated[str, typer.Argument(metavar="NAME", help="The account's name or id.")]
BaseUrl = Annotated[str | None, typer.Option("--base-url", metavar="URL", help="Where its API is.")]
KeyVariable = Annotated[
    str | None,
    typer.Option(
        "--api-key-env",
        metavar="VARIABLE",
        help="The environment variable that holds the provider's API key. Default: it is asked for,"
        " or read from standard input.",
    ),
]
HookVariable = Annotated[
    str | None,
    typer.Option(
        "--hook-secret-env",
        metavar="VARIABLE",
        help="The environment variable that holds the secret with which the provider signs its own"
        " webhooks; several are parted by spaces.",
    ),
]
HookAudience = Annotated[
    str | None,
    typer.Option(
        "--hook-audience",
        metavar="WORD",
        help="The aud of tokens that sign webhooks which single batches ask for. Default: the"
        " address that they go to.",
    ),
]
Discover = Annotated[
    bool | None,
    typer.Option(
        "--discover/--no-discover",
        help="Find every batch that is made in it from now on, whoever makes it.",
    ),
]


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits and . _ : @ = + -.")],
    *,
    provider: Annotated[
        str | None,
        typer.Option(
            "--provider",
            metavar="PROVIDER",
            help="Whose API it is. Default: the one that NAME is called after, else openai.",
        ),
    ] = None,
    base_url: BaseUrl = None,
    api_key_env: KeyVariable = None,
    discover: Discover = None,
    hook_secret_env: HookVariable = None,
    hook_audience: HookAudience = None,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Add an account, watched from now on, and see whether its provider answers.

    What is needed is asked for. The secrets are sealed, and never shown again.
    """
    from batchbell.providers.profiles import PROFILES
    from batchbell.providers.registry import provider_by_name

    profile = PROFILES.get(provider or provider_by_name(name))
    if profile is not None and profile.base_url is None and base_url is None:
        base_url = _address(profile.title)
    secret = _secret(api_key_env, of="the provider" if profile is None else profile.title)
    hook_secrets = _variable(hook_secret_env, "--hook-secret-env") if hook_secret_env else ""
    with connected(server, api_key) as client:
        added = client.add_account(
            name,
            secret,
            provider=provider,
            base_url=base_url,
            discover=bool(discover),
            hook_secrets=hook_secrets.split(),
            hook_audience=hook_audience,
        )
        _print(added, json=json)
        result = client.test_account(name)
    if result.ok:
        say(f"{name} answers, in {result.latency_ms:g} ms.")
        return
    say(f"{name} was added, but does not answer as it should ({result.error}): {result.message}")
    say(f"Mend it with `batchbell accounts update {name}`, or `remove` it.")
    raise typer.Exit(1)


def list_(json: Json = False, server: Server = None, api_key: ApiKey = None) -> None:
    """List the accounts, the default first."""
    with connected(server, api_key) as client:
        found = client.accounts()
    if json:
        print_json_lines(found)
        return
    rows = [
        (a.name, a.provider, a.base_url, a.state, a.source, moment(a.swept_at), a.reason)
        for a in found
    ]
    heads = ["name", "provider", "base url", "state", "source", "swept", "reason"]
    print_table(heads, rows, empty="No accounts.")


def show(name: Name, json: Json = False, server: Server = None, api_key: ApiKey = None) -> None:
    """Show an account: where it is, how it fares, and how its API key ends."""
    with connected(server, api_key) as client:
        _print(client.account(name), json=json)


def update(
    name: Name,
    *,
    base_url: BaseUrl = None,
    new_api_key: Annotated[
        bool, typer.Option("--new-api-key", help="Ask for another API key, or read it.")
    ] = False,
    api_key_env: KeyVariable = None,
    discover: Discover = None,
    new_hook_secret: Annotated[
        bool | None,
        typer.Option(
            "--new-hook-secret/--no-hook-secret",
            help="Ask for the secret of the provider's own webhooks, or read it; or forget it.",
        ),
    ] = None,
    hook_secret_env: HookVariable = None,
    hook_audience: HookAudience = None,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Change where an account is, its secrets, or whether it discovers. It is swept at once."""
    from batchbell.client import ApiError

    changes: dict[str, str | bool | list[str]] = {"base_url": base_url} if base_url else {}
    if new_api_key or api_key_env:
        changes["api_key"] = _secret(api_key_env)
    if discover is not None:
        changes["discover"] = discover
    if new_hook_secret or hook_secret_env:
        changes["hook_secrets"] = _hook_secrets(hook_secret_env)
    elif new_hook_secret is False:
        changes["hook_secrets"] = []
    if hook_audience:
        changes["hook_audience"] = hook_audience
    if not changes:
        raise typer.BadParameter(
            "Nothing to change: give --base-url, --new-api-key, --new-hook-secret or --discover."
        )
    with connected(server, api_key) as client:
        try:
            updated = client.update_account(name, **changes)
        except ApiError as error:
            if error.code != "credentials_required":
                raise
            raise typer.BadParameter(
                "The account's API key is not sent to another address unless it is given again: add"
                " --new-api-key, or --api-key-env.",
                param_hint="--base-url",
            ) from error
    _print(updated, json=json)


def try_(name: Name, json: Json = False, server: Server = None, api_key: ApiKey = None) -> None:
    """List an account's batches at its provider once, and say what came of it."""
    with connected(server, api_key) as client:
        result = client.test_account(name)
    if json:
        print_json(result)
    elif result.ok:
        print(f"{name} answers, in {result.latency_ms:g} ms.")
    else:
        print(f"{name} failed ({result.error}) after {result.latency_ms:g} ms: {result.message}")
    if not result.ok:
        raise typer.Exit(1)


def pause(name: Name, json: Json = False, server: Server = None, api_key: ApiKey = None) -> None:
    """Sweep an account no more until it is resumed."""
    with connected(server, api_key) as client:
        _print(client.pause_account(name), json=json)


def resume(name: Name, json: Json = False, server: Server = None, api_key: ApiKey = None) -> None:
    """Sweep an account again, at once."""
    with connected(server, api_key) as client:
        _print(client.resume_account(name), json=json)


def remove(
    name: Name,
    force: Annotated[
        bool, typer.Option("--force", help="Also where batches are open: nobody watches them then.")
    ] = False,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Remove an account and forget its API key. Added again, it has its batches again."""
    with connected(server, api_key) as client:
        gone = client.remove_account(name, force=force)
    if json:
        print_json(gone)
        return
    print(f"Account {name} is gone.")
    if gone.open_batches:
        say(f"{gone.open_batches:,} open batches are watched no more.")


def _address(title: str) -> str:
    if not sys.stdin.isatty():
        message = f"{title} has no address that is the same for everybody: give one."
        raise typer.BadParameter(message, param_hint="--base-url")
    typed: str = typer.prompt(f"Where your API of {title} is (base URL)", err=True)
    return typed.strip()


def _secret(variable: str | None, *, of: str = "the provider") -> str:
    """The provider's API key: never an argument, which other users of a machine can read."""
    if variable is not None:
        return _variable(variable, "--api-key-env")
    return _asked_for(f"The API key of {of}", "Give the API key", "--api-key-env")


def _hook_secrets(variable: str | None) -> list[str]:
    if variable is not None:
        return _variable(variable, "--hook-secret-env").split()
    asked = "The secret that the provider signs its webhooks with"
    return _asked_for(asked, "Give the webhook secret", "--hook-secret-env").split()


def _variable(name: str, option: str) -> str:
    found = os.environ.get(name, "").strip()
    if not found:
        raise typer.BadParameter(f"{name} is not set.", param_hint=option)
    return found


def _asked_for(question: str, give: str, option: str) -> str:
    if sys.stdin.isatty():
        typed: str = typer.prompt(question, hide_input=True, err=True)
        return typed.strip()
    read = sys.stdin.read().strip()
    if not read:
        raise typer.BadParameter(f"{give} on standard input, or by {option}.")
    return read


def _of_hooks(account: Account) -> list[tuple[str, str | None]]:
    """The webhooks of its provider, where it sends some."""
    hooks = account.hooks
    if hooks is None:
        return []
    if not hooks.secrets and not hooks.per_batch:
        return [("hooks", f"none: no secret; they would go to {hooks.url}")]
    number = hooks.announced_in_a_row
    proven = f"{number} end{'' if number == 1 else 's'} in a row"
    return [
        ("hooks", hooks.url),
        ("last hook", moment(hooks.received_at) or "none yet"),
        ("announced", f"{proven}: polled less often" if hooks.relaxed else proven),
        ("missed", moment(hooks.missed_at)),
    ]


def _print(account: Account, *, json: bool) -> None:
    if json:
        print_json(account)
        return
    print_facts(
        [
            ("account", account.name),
            ("id", account.id),
            ("provider", account.provider),
            ("base url", account.base_url),
            ("state", account.state),
            ("reason", account.reason),
            ("source", account.source),
            ("api key", account.api_key_hint),
            ("discovers", "every batch" if account.discover else "no"),
            *_of_hooks(account),
            ("swept", moment(account.swept_at)),
            ("made", moment(account.created_at)),
        ]
    )
