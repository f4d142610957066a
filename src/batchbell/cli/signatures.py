"""`sign` and `verify`: debug a receiver without waiting for a batch."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from secrets import token_bytes
from typing import Annotated

import typer

from batchbell.cli.errors import Code
from batchbell.cli.options import Json
from batchbell.cli.output import print_json

Body = Annotated[
    str, typer.Argument(metavar="BODY", help="The file with the body; - is standard input.")
]
Secret = Annotated[
    str | None,
    typer.Option(
        "--secret",
        metavar="SECRET",
        help="The whsec_… secret. Default: BATCHBELL_WEBHOOK_SECRET.",
    ),
]


def sign(
    body: Body = "-",
    *,
    secret: Secret = None,
    message_id: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="ID", help="The webhook-id. Default: the body's own id, else a new one."
        ),
    ] = None,
    at: Annotated[
        int | None,
        typer.Option(
            "--at", metavar="SECONDS", help="The timestamp, in seconds since 1970. Default: now."
        ),
    ] = None,
    curl: Annotated[
        str | None,
        typer.Option(
            "--curl", metavar="URL", help="Print a curl command that calls this URL instead."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Sign a body as Batchbell does, and print the three headers."""
    from batchbell.core import signing

    data = _read(body)
    headers = signing.headers(
        [signing.check_secret(_secret(secret))],
        message_id=_checked_id(message_id or _own_id(data)),
        timestamp=int(time.time()) if at is None else at,
        body=data,
    )
    command = curl and curl_command(curl, headers, data, file=body)
    if json:
        print_json({"headers": headers, **({"curl": command} if command else {})})
    else:
        print(command or "\n".join(f"{name}: {value}" for name, value in headers.items()))


def verify(
    body: Body = "-",
    *,
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header",
            "-H",
            metavar="'NAME: VALUE'",
            help="A header as it came; repeat for the three.",
        ),
    ] = None,
    headers: Annotated[
        str | None,
        typer.Option(
            "--headers", metavar="FILE", help="Take headers from a file, one a line, as curl -i."
        ),
    ] = None,
    secret: Secret = None,
    at: Annotated[
        int | None,
        typer.Option(
            "--at",
            metavar="SECONDS",
            help="When it came, in seconds since 1970, if that was a while ago. Default: now.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Say whether a webhook verifies, and if not, all that is wrong with it."""
    from batchbell.core import signing

    now = time.time() if at is None else at
    if headers == body == "-":
        raise typer.BadParameter("Standard input is the body or the headers, not both.")
    lines = _read(headers).decode("utf-8", "replace").splitlines() if headers else []
    came = headers_in([*lines, *(header or [])])
    findings = signing.explain(_secret(secret), headers=came, body=_read(body), now=now)
    if json:
        problems = [{"code": one.fault, "message": one.message} for one in findings]
        print_json({"verified": not findings, "problems": problems})
    elif findings:
        print("\n".join(one.message for one in findings))
    else:
        age = now - int(came["webhook-timestamp"])
        print(f"The signature holds: {came['webhook-id']}, signed {age:.0f} s before.")
    if findings:
        raise typer.Exit(Code.FAILED)


def curl_command(url: str, headers: Mapping[str, str], data: bytes, *, file: str) -> str:
    """A command for a shell that sends exactly these bytes.

    Raises InvalidRequest for a body from standard input that a shell cannot hold.
    """
    sent = {"content-type": "application/json", **headers}
    options = [word for pair in sent.items() for word in ("-H", ": ".join(pair))]
    # --data-raw takes no leading @ for a file's name, and leaves newlines alone.
    given = ["--data-raw", _text(data)] if file == "-" else ["--data-binary", f"@{file}"]
    return shlex.join(["curl", "-i", url, *options, *given])


def headers_in(lines: Iterable[str]) -> dict[str, str]:
    """Headers by their names in lower case; what is no header, such as a request line, is left.

    `curl -v` puts `> ` in front of what it sends.
    """
    pairs = (line.removeprefix("> ").partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, colon, value in pairs if colon}


def _read(file: str) -> bytes:
    from batchbell.core.errors import SettingsError

    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise SettingsError(f"Cannot read {file}: {error.strerror or error}.") from error


def _text(data: bytes) -> str:
    from batchbell.core.errors import InvalidRequest

    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InvalidRequest("A shell cannot hold this body: give it as a file.", param="body")
    return text


def _secret(given: str | None) -> str:
    from batchbell.core.errors import SettingsError
    from batchbell.settings import load_settings

    if given is not None:
        return given
    own = load_settings().webhook_secret
    if own is None:
        raise SettingsError("Which secret? Pass --secret, or set BATCHBELL_WEBHOOK_SECRET.")
    return own.get_secret_value()


def _own_id(data: bytes) -> str:
    """The id in the body, where Batchbell's events have it, or one like theirs."""
    import json

    from batchbell.core.ids import new_id

    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        event = None
    own = event.get("id") if isinstance(event, dict) else None
    if isinstance(own, str) and own:
        return own
    return new_id("evt", now=time.time(), rand=token_bytes(10))


def _checked_id(message_id: str) -> str:
    from batchbell.core.errors import InvalidRequest

    if not message_id.isascii() or not message_id.isprintable() or "." in message_id:
        raise InvalidRequest("A webhook-id is printable ASCII without a dot.", param="id")
    return message_id
