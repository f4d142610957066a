"""`python -m bench [a b …] [--quick | --full]`."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable

import uvloop

from bench import (
    alone,
    burst,
    claims,
    collecting,
    crowds,
    dashboards,
    deliveries,
    endings,
    fairness,
    fleets,
    machine,
    memory,
    pages,
    preflight,
    registrations,
    sweeps,
    uploads,
)
from bench.goals import show_goals
from bench.run import Run

BENCHES: dict[str, Callable[[Run], Awaitable[None]]] = {
    "a": deliveries.run,
    "b": sweeps.run,
    "c": memory.run,
    "d": endings.run,
    "e": registrations.run,
    "f": fleets.run,
    "g": fleets.drain,
    "h": fairness.run,
    "i": claims.run,
    "j": uploads.run,
    "k": collecting.run,
    "l": crowds.run,
    "m": preflight.run,
    "n": burst.run,
    "o": pages.run,
    "p": dashboards.run,
    "q": alone.run,
}


def main() -> None:
    """Run the benches that were asked for, in order."""
    listed = "; ".join(f"{letter}: {bench.__doc__}" for letter, bench in BENCHES.items())
    parser = argparse.ArgumentParser(prog="python -m bench", description=listed)
    parser.add_argument("which", nargs="*", metavar="a-q", help="all of them unless some are named")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="small numbers, within some minutes")
    sizes.add_argument("--full", action="store_true", help="10,000,000 finished deliveries in i")
    parser.add_argument("--baseline", metavar="COMMIT", help="run a, b, e, n and q beside this one")
    asked = parser.parse_args()
    if strange := set(asked.which) - set(BENCHES):
        parser.error(f"there is no bench {', '.join(sorted(strange))}")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(
            _run(
                sorted(set(asked.which)) or list(BENCHES),
                Run(quick=asked.quick, full=asked.full, baseline=asked.baseline),
            )
        )


async def _run(which: list[str], run: Run) -> None:
    async with run:
        machine.describe(run.folder)
        for letter in which:
            started = time.perf_counter()
            print(f"\n## ({letter}) {BENCHES[letter].__doc__}\n", flush=True)
            await BENCHES[letter](run)
            print(f"\n(took {time.perf_counter() - started:.0f} s)", flush=True)
        show_goals(run)


if __name__ == "__main__":
    main()
