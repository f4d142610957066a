"""(c): how much memory open batches take."""

from __future__ import annotations

from bench.run import Run
from bench.swept import Swept, swept
from bench.tables import show

EACH = 10_000


async def run(run: Run) -> None:
    """Memory of a process that sweeps"""
    none, *found = [await swept(run, n) for n in (0, EACH, *(() if run.quick else (10 * EACH,)))]
    show(
        ["open batches", "settled MB", "peak MB", "settled, per 10,000", "peak, per 10,000"],
        [_row(one, none) for one in (none, *found)],
    )
    print(
        "\nResident memory of a process that opened the database and swept four times: at its end"
        " and at its highest.\nPer 10,000: what is above the process that had nothing to sweep."
        " Batches live in the database; a sweep holds\nan id, a fingerprint and a time of each"
        " while it runs."
    )


def _row(one: Swept, none: Swept) -> list[str]:
    now, base = one.idle[-1], none.idle[-1]
    row = [f"{one.open_batches:,}", f"{now.settled_mb:.0f}", f"{now.peak_mb:.0f}"]
    if one is none:
        return [*row, "", ""]
    per = EACH / one.open_batches
    settled, peak = now.settled_mb - base.settled_mb, now.peak_mb - base.peak_mb
    return [*row, f"{settled * per:.1f}", f"{peak * per:.1f}"]
