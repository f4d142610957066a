"""`submit`: hand a file of requests in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batchbell.cli.batches import exit_code, showing, standing
from batchbell.cli.connection import connected
from batchbell.cli.errors import Code, complain
from batchbell.cli.options import ApiKey, Json, Results, Server, metadata_pairs
from batchbell.cli.output import print_json, say

if TYPE_CHECKING:
    from batchbell.client import ApiError, Batchbell, Replay, Submission


PROBLEMS_MAX = 20


File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="JSON lines, as the account's provider has them in a batch; - is standard input.",
    ),
]
Webhook = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="The webhook to call when all is answered."),
]
Endpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint", metavar="PATH", help="For lines without a url, such as /v1/responses."
    ),
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", help="For requests that do not name their model."),
]
HandedTo = Annotated[
    str | None, typer.Option("--account", metavar="NAME", help="The account to hand it in to.")
]
RetryMissing = Annotated[
    int,
    typer.Option(
        "--retry-missing",
        metavar="N",
        min=0,
        help="Hand in again up to N times what expired, or failed for a reason that passes.",
    ),
]
RetryTokens = Annotated[
    int | None,
    typer.Option(
        "--retry-max-tokens",
        metavar="N",
        min=0,
        help="All that is handed in again may take up to N prompt tokens, by estimate.",
    ),
]
Metadata = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata", metavar="KEY=VALUE", help="Comes back with the webhook; repeat for more."
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        metavar="KEY",
        help="The same file again, with the same key, is the same submission. By default each call"
        " has its own.",
    ),
]
Waits = Annotated[
    bool, typer.Option("--wait", help="Wait for the end; the exit code is that of `wait`.")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Wait, and write the results there."),
]


def submit(
    file: File,
    *,
    url: Webhook = None,
    endpoint: Endpoint = None,
    model: Model = None,
    account: HandedTo = None,
    retry_missing: RetryMissing = 0,
    retry_max_tokens: RetryTokens = None,
    metadata: Metadata = None,
    results: Results = None,
    idempotency_key: Key = None,
    wait: Waits = False,
    output: Output = None,
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Hand in a file of requests, however large, and hear when all of them are answered.

    It is checked first, split where the provider's limits ask for it, and joined in the end.
    """
    options: dict[str, Any] = {
        "url": url,
        "endpoint": endpoint,
        "model": model,
        "account": account,
        "retry_missing": retry_missing,
        "retry_max_tokens": retry_max_tokens,
        "metadata": metadata_pairs(metadata),
        "results": results,
        "idempotency_key": idempotency_key,
    }
    with connected(server, api_key) as client:
        made = _hand_in(client, file, options)
        if not wait and output is None:
            print_json(made) if json else print(_summary(made))
            return
        say(_summary(made))
        with showing(made.id) as see:
            batch = client.wait(made.id, on_change=see)
        if output is not None:
            client.download_results(made.id, output)
            say(f"{output}: {output.stat().st_size:,} bytes.")
        if json:
            print_json(client.submission(made.id))
        else:
            print(f"{batch.id}: {standing(batch)}; outcome: {batch.batchbell.outcome}.")
    raise typer.Exit(exit_code(batch))


def cancel(
    identity: Annotated[
        str, typer.Argument(metavar="ID", help="A submission's id, sub_…, or a replay's, rpl_….")
    ],
    json: Json = False,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Cancel a submission or a replay. What is done already is kept."""
    prefix = identity.partition("_")[0]
    if prefix not in ("sub", "rpl"):
        raise typer.BadParameter(
            f"{identity} is no submission and no replay. Cancel a batch at its provider.",
            param_hint="ID",
        )
    with connected(server, api_key) as client:
        if prefix == "sub":
            submission = client.cancel_submission(identity)
            ended: Submission | Replay = submission
            now = submission.status
        else:
            replay = client.cancel_replay(identity)
            ended, now = replay, replay.state
    if json:
        print_json(ended)
    else:
        print(f"{identity}: {now}.")


def _hand_in(client: Batchbell, file: str, options: dict[str, Any]) -> Submission:
    from batchbell.client import ApiError

    try:
        return client.submit(sys.stdin.buffer if file == "-" else Path(file), **options)
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}", param_hint="FILE") from error
    except ApiError as error:
        if error.code != "invalid_requests":
            raise
        _complain_of_lines(error)
        raise typer.Exit(Code.FAILED) from None


def _complain_of_lines(error: ApiError) -> None:
    if len(error.problems) < 2:
        complain(error.message)
        return
    complain(error.message.partition(" Line ")[0])
    for problem in error.problems[:PROBLEMS_MAX]:
        where = "file" if problem.line is None else f"line {problem.line}"
        say(f"  {where}: {problem.message}")
    left = len(error.problems) - PROBLEMS_MAX
    if left > 0:
        say(f"  and {left} more")


def _summary(made: Submission) -> str:
    lines = made.request_counts.total if made.request_counts else 0
    parts = f"{len(made.parts)} {'part' if len(made.parts) == 1 else 'parts'}"
    return f"{made.id}: {lines:,} requests in {parts}, for account {made.account}."
