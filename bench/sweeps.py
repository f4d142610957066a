"""(b): what it costs to watch when nothing changes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

from batchbell.core.polling import PAGE_SIZE
from bench.run import THIS, Run
from bench.swept import Cost, Swept, swept
from bench.tables import show

SIZES = (100, 1_000, 10_000, 100_000)
LOOKS = 1
"""Every tenth sweep reads one batch by id, to find out whether the list is true."""


async def run(run: Run) -> None:
    """Provider calls and CPU seconds of a sweep, nothing changing"""
    sizes = SIZES[: 3 if run.quick else 4]
    found = {
        (number, commit): await swept(run, number, commit)
        for number in sizes
        for commit in run.trees
    }
    for (number, commit), one in found.items():
        run.note(f"first sweep of {number:,}, CPU s", commit, one.first.cpu_seconds)
        if commit == THIS:
            _check(one)
    columns = ["open batches", "code", "calls", "seconds", "CPU s", "CPU µs a batch"]
    show(
        [*columns, "first sweep: s", "CPU s"],
        [_row(one, commit) for (_, commit), one in found.items()],
    )
    print(
        "\nMedians of three sweeps, SQLite, without the call budget, which would spread 1,000 calls"
        " over most of a minute.\nThe provider is a process of its own; the seconds hold its"
        " answers. No row of a batch was written, and of any\ntable no more than the account's,"
        " when a sweep begins and ends. The first sweep sees every batch for the first time,"
        " and writes it."
    )


def _check(one: Swept) -> None:
    pages = math.ceil(one.open_batches / PAGE_SIZE)
    calls = [cost.calls for cost in one.idle]
    assert max(calls) <= pages + LOOKS, f"{calls} calls for {pages} pages"
    assert statistics.median(calls) <= pages, f"{calls} calls for {pages} pages"
    assert one.batches_unchanged, "rows of batches have changed"
    written = [cost.rows_written for cost in one.idle]
    # A sweep that takes long keeps its lease: one row every 20 s.
    assert max(written) <= 2 + max(cost.seconds for cost in one.idle) / 20, written


def _row(one: Swept, commit: str) -> list[str]:
    def middle(of: Callable[[Cost], float]) -> float:
        return statistics.median(of(cost) for cost in one.idle)

    cpu = middle(lambda cost: cost.cpu_seconds)
    return [
        f"{one.open_batches:,}",
        commit,
        f"{middle(lambda cost: cost.calls):,.0f}",
        f"{middle(lambda cost: cost.seconds):.2f}",
        f"{cpu:.2f}",
        f"{cpu / one.open_batches * 1e6:.0f}",
        f"{one.first.seconds:.2f}",
        f"{one.first.cpu_seconds:.2f}",
    ]
