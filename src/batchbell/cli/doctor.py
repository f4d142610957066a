"""`doctor`: looks at everything that must be right, and says what to do where it is not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from batchbell.cli.errors import Code
from batchbell.cli.options import ApiKey, Json, Server
from batchbell.cli.output import plain, print_grid, print_json_lines

if TYPE_CHECKING:
    from batchbell.checks import Finding

MARKS = {"ok": ("green", "ok"), "note": ("yellow", "note"), "failed": ("red", "FAILED")}


def doctor(json: Json = False, server: Server = None, api_key: ApiKey = None) -> None:
    """Check settings, database, clock, provider, server and receiver rules; say what to do.

    Exits with 1 if a check failed. Notes are for you to judge.
    """
    from batchbell.cli import checks
    from batchbell.observability import configure_logging

    configure_logging(level="error", format="text")
    findings = asyncio.run(checks.examine(server=server, api_key=api_key))
    if json:
        print_json_lines(findings)
    else:
        _print(findings)
    if any(finding.state == "failed" for finding in findings):
        raise typer.Exit(Code.FAILED)


def _print(findings: list[Finding]) -> None:
    rows = []
    for finding in findings:
        style, word = MARKS[finding.state]
        text = f"{finding.says}\n{finding.advice}" if finding.advice else finding.says
        rows.append(([(word, style), (finding.check, "bold")], plain(text)))
    print_grid(rows)
