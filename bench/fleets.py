"""(f), (g): how the rate depends on the number of endpoints, and how an outage's backlog drains."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict

from sqlalchemy import Connection, select, text

from batchbell.core.model import Dialect
from batchbell.storage.schema import deliveries
from bench.backlog import Backlog
from bench.bulk import fill
from bench.children import Child
from bench.run import Run, opened
from bench.sending import Timing
from bench.tables import show

FLEETS = (1, 100, 10_000)
OUTAGE_SECONDS = 7200.0


async def run(run: Run) -> None:
    """Deliveries a second with 1, 100 and 10,000 endpoints"""
    rounds, number = (2, 1000) if run.quick else (3, 5000)
    rates: dict[tuple[str, int], list[float]] = defaultdict(list)
    async with Child("receiver", run.folder) as receiver, _sending(run) as sending:
        base = receiver.ready["url"]
        backlogs = {
            (name, size): Backlog(url, [f"{base}/hook/{n}" for n in range(size)], Dialect.WATCH)
            for size in FLEETS
            for name, url in await _databases(run)
        }
        for round_ in range(rounds + 1):
            for key, backlog in backlogs.items():
                await backlog.add(number)
                timing = Timing(**await sending.ask(durable=backlog.database_url))
                if round_:  # the first one warms up
                    rates[key].append(number / (timing.ended - timing.started))
        for backlog in backlogs.values():
            await backlog.check()
    rows = []
    for name, size in sorted(backlogs):
        ours, hundred = rates[name, size], rates[name, 100]
        ratio = statistics.median(a / b for a, b in zip(ours, hundred, strict=True))
        words = f"{name}, {size:,} endpoint{'s' * (size > 1)}"
        rows.append([words, f"{statistics.median(ours):,.0f}", f"{ratio:.2f}"])
    show(["database", "a second", "to 100 endpoints"], rows)
    print(
        f"\nMedians of {rounds} rounds of {number:,} deliveries, by turns. One endpoint is called"
        " by 8 at once at most, however much waits."
    )


async def drain(run: Run) -> None:
    """How deliveries drain that waited for one endpoint while it was down"""
    sizes = (5_000, 5_000) if run.quick else (100_000, 20_000)
    rows = []
    async with Child("receiver", run.folder) as receiver, _sending(run) as sending:
        for (name, url), number in zip(await _databases(run), sizes, strict=True):
            backlog = Backlog(url, [f"{receiver.ready['url']}/hook"], Dialect.WATCH)
            await fill(backlog, number)
            async with opened(url) as store:
                await store.write(_was_down, now=time.time())
            timing = Timing(**await sending.ask(durable=url))
            await backlog.check()
            seconds = timing.ended - timing.started
            rows.append(
                [f"{name}, {number:,} waiting", f"{seconds:.1f}", f"{number / seconds:,.0f}"]
            )
    show(["database", "seconds", "a second"], rows)
    print(
        "\nThe breaker of the endpoint was open for two hours. One probe finds it well; then what"
        " waited is pulled forward, 1,000 at a time,\nand sent by 1, 2, 4 and at last 8 at once."
        " All were delivered, with one attempt each."
    )


def _was_down(connection: Connection, *, now: float) -> None:
    """As if the endpoint had failed for hours: a probe is due, all else much later."""
    began = now - OUTAGE_SECONDS
    connection.execute(
        text(
            "UPDATE endpoints SET state = 'failing', failures = 20, failing_since = :began,"
            " opened_at = :began, probe_at = :now"
        ),
        {"began": began, "now": now},
    )
    first = connection.execute(select(deliveries.c.id).limit(1)).scalar_one()
    later = deliveries.update().values(due_at=now + OUTAGE_SECONDS)
    connection.execute(later.where(deliveries.c.id != first))


def _sending(run: Run) -> Child:
    return Child("sending", run.folder, urls=[])


async def _databases(run: Run) -> list[tuple[str, str]]:
    return [("SQLite", run.sqlite()), ("PostgreSQL", await run.postgresql())]
