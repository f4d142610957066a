"""(h): what one bad endpoint costs 99 healthy ones, and how late anything ever is."""

from __future__ import annotations

import statistics
from typing import Any

from bench.children import Child
from bench.run import Run
from bench.tables import show

HEALTHY = 99
ANSWER_SECONDS = 0.05
"""How long a receiver takes: that of a flooded endpoint too."""
A_SECOND = 100
DEAD_WAITING = 1000
AIM = 1.10
COLUMNS = ["database, bad endpoint", "median ms", "p99 ms", "p99 to none bad", "aim", "oldest ms"]
Found = dict[tuple[str, str], list[dict[str, Any]]]


async def run(run: Run) -> None:
    """One bad endpoint among 99 healthy ones, and the age of the oldest past-due delivery"""
    rounds, seconds, flood = (2, 3.0, 10_000) if run.quick else (3, 15.0, 100_000)
    names, found = ("SQLite", "PostgreSQL"), Found()
    async with (
        Child("receiver", run.folder, delay_seconds=ANSWER_SECONDS) as receiver,
        Child("steady", run.folder) as steady,
    ):
        base = receiver.ready["url"]
        urls = [f"{base}/hook/{place}" for place in range(HEALTHY)]
        ways = {
            "none bad": ("", 0),
            "one dead": (f"{base}/dead", DEAD_WAITING),
            "one flooded": (f"{base}/hook/flooded", flood),
        }
        for _ in range(rounds):
            for name in names:
                for way, (bad, waiting) in ways.items():
                    database = run.sqlite() if name == "SQLite" else await run.postgresql()
                    order = {"database": database, "urls": urls, "bad": bad, "waiting": waiting}
                    one = await steady.ask(**order, a_second=A_SECOND, seconds=seconds)
                    found.setdefault((name, way), []).append(one)
    show(COLUMNS, [_row(found, name, way) for name in names for way in ways])
    print(
        f"\n{A_SECOND} deliveries a second for {HEALTHY} endpoints that answer after"
        f" {ANSWER_SECONDS * 1000:.0f} ms; medians of {rounds} rounds of {seconds:g} s, by turns."
        f" Times are from the event to\nthe settled delivery, of the healthy endpoints."
        f" {DEAD_WAITING:,} deliveries wait for the dead one, which never answers;\n{flood:,} for"
        " the flooded one, which answers like the others. Oldest: the p99 of the age of the oldest"
        " past-due delivery,\nlooked for ten times a second."
    )


def _row(found: Found, name: str, way: str) -> list[str]:
    ours, plain = found[name, way], found[name, "none bad"]
    figures = [statistics.median(one[what] for one in ours) for what in ("lag50", "lag99", "age99")]
    ratios = [one["lag99"] / other["lag99"] for one, other in zip(ours, plain, strict=True)]
    row = [f"{name}, {way}", *(f"{one:.0f}" for one in figures)]
    if way == "none bad":
        return [*row[:3], "", "", row[3]]
    return [*row[:3], f"{statistics.median(ratios):.2f}", f"{AIM:.2f}", ""]
