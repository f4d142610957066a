"""Trying Batchbell without a key: `demo` and `sandbox`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from batchbell.cli.errors import Code, complain
from batchbell.cli.output import say

if TYPE_CHECKING:
    from batchbell.sandbox import Hook, Received, Receiver, Sandbox

SANDBOX_SECONDS = 60.0
PORT_MAX = 65_535


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the database and the input file where they are.")
    ] = False,
) -> None:
    """See the whole of it in half a minute: no key, no account, no network.

    Fake providers, Batchbell and a receiver run on free ports of this machine. A batch of a few
    hundred requests is made with the official openai SDK, and one each for Anthropic and Gemini;
    their webhooks arrive side by side, and one is verified and shown.
    """
    from batchbell.cli import walkthrough

    try:
        asyncio.run(walkthrough.run(keep=keep))
    except walkthrough.Failed as error:
        complain(f"The demo failed: {error}")
        raise typer.Exit(Code.FAILED) from None
    except asyncio.CancelledError:
        raise typer.Exit(Code.TERMINATED) from None


def sandbox(
    *,
    host: Annotated[str, typer.Option(metavar="HOST", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=PORT_MAX, help="0 takes any.")
    ] = 8089,
    api_key: Annotated[
        str, typer.Option("--api-key", metavar="KEY", help="The key that callers must send.")
    ] = "sk-sandbox",
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds", metavar="SECONDS", min=0, help="How long a batch takes from start to end."
        ),
    ] = SANDBOX_SECONDS,
    receiver_port: Annotated[
        int | None,
        typer.Option(
            "--receiver-port",
            metavar="PORT",
            min=0,
            max=PORT_MAX,
            help="Also receive webhooks there, and print them; 0 takes any.",
        ),
    ] = None,
    hook_url: Annotated[
        str | None,
        typer.Option(
            "--hook-url",
            metavar="URL",
            help="Call this address when a batch of OpenAI's has ended, as OpenAI does.",
        ),
    ] = None,
    hook_secret: Annotated[
        str | None,
        typer.Option(
            "--hook-secret", metavar="SECRET", help="The whsec_… that these calls are signed with."
        ),
    ] = None,
) -> None:
    """Serve a fake of the batch APIs of OpenAI, Anthropic, Gemini and Mistral until Ctrl-C."""
    from batchbell.core import signing
    from batchbell.core.errors import InvalidRequest, SettingsError
    from batchbell.sandbox import hooks

    try:
        secret = signing.check_secret(hook_secret or hooks.SECRET)
    except InvalidRequest as error:
        raise typer.BadParameter(error.message, param_hint="--hook-secret") from error
    hook = None if hook_url is None else hooks.Hook(hook_url, secret)
    try:
        asyncio.run(
            _sandbox(host, port, api_key, seconds=seconds, receiver_port=receiver_port, hook=hook)
        )
    except OSError as error:
        raise SettingsError(f"Cannot listen: {error.strerror or error}.") from error


async def _sandbox(
    host: str,
    port: int,
    api_key: str,
    *,
    seconds: float,
    receiver_port: int | None,
    hook: Hook | None,
) -> None:
    from batchbell.sandbox import Schedule, serve_receiver, serve_sandbox

    def show(sandbox: Sandbox) -> None:
        for line in how_to_use(sandbox.base_url, api_key):
            say(line)
        if hook is not None:
            say(f"  webhooks:   go to {hook.url}, signed with OPENAI_WEBHOOK_SECRET={hook.secret}")

    schedule = Schedule.lasting(seconds)
    provider = serve_sandbox(host, port, api_key, schedule=schedule, hook=hook, on_ready=show)
    if receiver_port is None:
        await provider
        return
    receiver = serve_receiver(
        host, receiver_port, on_ready=_say_receiver, on_received=_show_received
    )
    await asyncio.gather(provider, receiver)


def how_to_use(base_url: str, api_key: str) -> list[str]:
    """Lines that can be copied into a shell and a program."""
    root = base_url.removesuffix("/v1")
    return [
        f"The sandbox serves {base_url}. Ctrl-C ends it.",
        f"  Batchbell:  OPENAI_API_KEY={api_key} OPENAI_BASE_URL={base_url} batchbell serve",
        f'  openai SDK: OpenAI(api_key="{api_key}", base_url="{base_url}")',
        f"  Anthropic:  ANTHROPIC_API_KEY={api_key} ANTHROPIC_BASE_URL={root}",
        f"  Gemini:     GEMINI_API_KEY={api_key} GOOGLE_GEMINI_BASE_URL={root}/gemini",
        f"  Mistral:    MISTRAL_API_KEY={api_key} MISTRAL_BASE_URL={root}/mistral",
        f"  Groq:       GROQ_API_KEY={api_key} GROQ_BASE_URL={root}/groq",
        f"  Azure:      AZURE_OPENAI_API_KEY={api_key} AZURE_OPENAI_ENDPOINT={root}/azure",
    ]


def _say_receiver(receiver: Receiver) -> None:
    say(f"  webhooks:   {receiver.url('/hook')} prints what it gets")


def _show_received(received: Received) -> None:
    body = received.body.decode("utf-8", "replace")
    seen = f"{received.method} {received.path} {received.headers.get('webhook-id', '')} {body}"
    print(seen, flush=True)
