"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

Json = Annotated[
    bool, typer.Option("--json", help="JSON for programs: one document, or a line for each item.")
]
Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="The server, as a URL or host:port. Default: BATCHBELL_URL, else HOST and PORT.",
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", metavar="KEY", help="The bb_… key. Default: BATCHBELL_API_KEY."),
]
DatabasePath = Annotated[
    str | None,
    typer.Option("--database-path", metavar="FILE", help="As the setting DATABASE_PATH."),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database-url", metavar="URL", help="As the setting DATABASE_URL."),
]
BatchId = Annotated[str, typer.Argument(metavar="BATCH_ID", help="The provider's id of the batch.")]
URL_NAMES = ("--url", "--webhook-url", "--webhook_url", "--webhookUrl", "--webhook")
WebhookUrl = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="The webhook to call when it ends.")
]
Project = Annotated[
    str | None,
    typer.Option(
        "--project", metavar="NAME", help="Another project, by name or id; only `default` may."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask first.")]
Results = Annotated[
    str | None,
    typer.Option(
        "--results",
        metavar="HOW",
        help="How results travel: link, inline (the lines, where they are few) or none.",
    ),
]
Account = Annotated[
    str | None, typer.Option("--account", metavar="NAME", help="The account that the batch is in.")
]


def one_url(args: Sequence[str]) -> list[str]:
    """The arguments with the URL of a webhook called `--url`, which is how commands know it.

    Raises BadParameter where it is given twice.
    """
    made, given = list(args), []
    for at, word in enumerate(made[: made.index("--")] if "--" in made else made):
        name, sign, value = word.partition("=")
        if name in URL_NAMES:
            given.append(name)
            made[at] = f"--url{sign}{value}"
    if len(given) > 1:
        raise typer.BadParameter(f"{' and '.join(given)} mean the same. Pass one of them.")
    return made


def metadata_pairs(texts: Sequence[str] | None) -> dict[str, str] | None:
    """What `--metadata` was given. Raises BadParameter."""
    return dict(_pair(text) for text in texts) if texts else None


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE.", param_hint="--metadata")
    return key, value
