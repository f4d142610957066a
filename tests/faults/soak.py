"""Rounds of random trouble: whatever dies, whoever fails, no webhook is lost or told for nothing.

`python -m tests.faults.soak` (or `make soak`) plays rounds for SOAK_MINUTES, from the seed
SOAK_SEED on, SQLite and PostgreSQL by turns, SOAK_AT_ONCE at once, and says at the end what they
have proven. A round is made of its seed alone: a process that is killed at the same place,
receivers that fail alike; only the timing is the machine's. So a round that failed is played again
by `make soak SOAK_SEED=<its number> SOAK_MINUTES=0`.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import count
from multiprocessing import get_context
from pathlib import Path

from tests.conftest import Server, database_on
from tests.faults.rounds import play
from tests.faults.verdicts import Verdict

MINUTES = 10.0
AT_ONCE = 2 * (os.cpu_count() or 1)
"""A round waits for as long as it works."""


def play_one(seed: int, postgres_url: str) -> tuple[Verdict, float]:
    """Play one round, and say how many seconds it took. Raises AssertionError."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="batchbell-soak-") as folder:
        if seed % 2 == 0:
            verdict = asyncio.run(play(seed, f"sqlite:///{folder}/soak.db", Path(folder)))
        else:
            with database_on(postgres_url) as url:
                verdict = asyncio.run(play(seed, url, Path(folder)))
    return verdict, time.monotonic() - started


def soak(seeds: Iterator[int], *, seconds: float, at_once: int, postgres_url: str) -> Verdict:
    """Play rounds until the time is over, one at least; returns all that they have proven.

    Raises what a round raised, once the others that were under way have ended.
    """
    ends, sum_ = time.monotonic() + seconds, Verdict()
    with ProcessPoolExecutor(at_once, mp_context=get_context("spawn")) as pool:
        playing: dict[Future[tuple[Verdict, float]], int] = {}

        def more() -> None:
            seed = next(seeds)
            playing[pool.submit(play_one, seed, postgres_url)] = seed

        for _ in range(at_once):
            more()
        while playing:
            done, _ = wait(playing, return_when=FIRST_COMPLETED)
            for future in done:
                sum_ += _told(playing.pop(future), future)
                if time.monotonic() < ends:
                    more()
    return sum_


def _told(seed: int, future: Future[tuple[Verdict, float]]) -> Verdict:
    """Say how a round went."""
    try:
        verdict, took = future.result()
    except BaseException:
        print(f"FAILED: play it again with make soak SOAK_SEED={seed} SOAK_MINUTES=0", flush=True)
        raise
    database = "PostgreSQL" if seed % 2 else "SQLite"
    print(f"seed {seed}: {database}, {verdict}; {took:.1f} s", flush=True)
    return verdict


def main() -> None:
    """See the module."""
    seed = int(os.environ.get("SOAK_SEED") or time.time())
    minutes = float(os.environ.get("SOAK_MINUTES") or MINUTES)
    at_once = int(os.environ.get("SOAK_AT_ONCE") or AT_ONCE) if minutes else 1
    print(f"from seed {seed} on, {at_once} at once, for {minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory(prefix="batchbell-soak-", ignore_cleanup_errors=True) as home:
        server = Server(Path(home))
        try:
            server.forget_power_cuts()
            how = {"seconds": minutes * 60, "at_once": at_once, "postgres_url": server.url}
            proven = soak(count(seed), **how)
        finally:
            server.close()
    print(f"{proven.rounds} rounds: {proven}")


if __name__ == "__main__":
    main()
