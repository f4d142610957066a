"""Attempts, as people read them: a line for each, and what the last one said to whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchbell.cli.output import moment, print_facts, print_table

if TYPE_CHECKING:
    from batchbell.client import Attempt

HEADS = ("try", "result", "HTTP", "took", "at", "because", "answer")


def print_attempts(attempts: Sequence[Attempt]) -> None:
    """A table of them, and the headers of the last one under it."""
    print_table(HEADS, map(_row, attempts), empty="")
    last = attempts[-1]
    for title, headers in (("sent", last.request_headers), ("answered", last.response_headers)):
        if headers:
            print(f"\n{title} with try {last.number}:")
            print_facts(headers.items())


def _row(attempt: Attempt) -> Sequence[object]:
    return (
        attempt.number,
        attempt.result,
        attempt.status,
        waterfall(attempt),
        moment(attempt.started_at),
        attempt.explanation or attempt.detail,
        attempt.response_body,
    )


def waterfall(attempt: Attempt) -> str | None:
    """`dns 3 · connect 11 · tls 20 · first byte 80 · total 92 ms`, without what was not reached."""
    if attempt.duration_ms is None:
        return None
    seen = attempt.timings
    stages = {
        "dns": seen and seen.dns_ms,
        "connect": seen and seen.connect_ms,
        "tls": seen and seen.tls_ms,
        "first byte": seen and seen.first_byte_ms,
        "total": attempt.duration_ms,
    }
    shown = [f"{name} {ms:,.0f}" for name, ms in stages.items() if ms is not None]
    return " · ".join(shown) + " ms"
