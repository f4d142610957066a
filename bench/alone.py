"""(q): one endpoint, to which 8 calls are under way at once."""

from __future__ import annotations

import contextlib

from bench.children import Child
from bench.deliveries import Ways, rounds
from bench.run import Run
from bench.tables import show

DELAYS = {"1 ms": 0.001, "50 ms": 0.05}


async def run(run: Run) -> None:
    """Durable deliveries a second to one endpoint that takes 1 ms or 50 ms to answer"""
    times, number = (2, 400) if run.quick else (5, 4000)
    shown = []
    for words, seconds in DELAYS.items():
        async with contextlib.AsyncExitStack() as stack:
            receiver = Child("receiver", run.folder, quick_delay_seconds=seconds)
            await stack.enter_async_context(receiver)
            make = Ways(run, stack, [f"{receiver.ready['url']}/hook"])
            name, ways = f"one endpoint, {words}", []
            for commit in run.trees:
                senders = await make.senders(1, commit)
                ways.append(await make.durable(name, run.sqlite(), senders, commit))
            # A second or some of each, however long a call takes.
            sent = await rounds(ways, run, number=min(number, int(20 / seconds)), times=times)
            total = (await receiver.ask())["total"]
            assert total == sent, f"{sent} were sent, {total} came"
            shown += [way.row() for way in ways]
    columns = ["way", "a second", "CPU µs", "rounds, 1,000/s"]
    show(columns, [[name, rate, cpu, rounds] for name, rate, _, cpu, rounds, _ in shown])
    print("\nSQLite. The receiver answers each call after that time, in a process of its own.")
