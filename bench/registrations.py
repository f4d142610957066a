"""(e): how fast batches can be registered, beside another commit."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp

from bench.caller import call_all, posted
from bench.resident import cpu_seconds
from bench.run import Run
from bench.server import Server, started
from bench.tables import percentile, show

CALLERS = 64
ENDPOINTS = 50
BULK = 1000
NOBODY = "http://127.0.0.1:9"
"""Where no provider answers, so that no sweeps are counted."""

Requests = Sequence[bytes]
Way = Callable[[str, Sequence[str]], Requests]


@dataclass(frozen=True)
class Pace:
    """How one way of registering went."""

    number: int
    seconds: float
    cpu_seconds: float
    """Of the server."""
    latencies: list[float]


async def run(run: Run) -> None:
    """Registrations a second, single and in bulk"""
    single, calls, rounds = (2_000, 5, 2) if run.quick else (8_000, 20, 5)
    paces: dict[tuple[str, str, str], list[Pace]] = defaultdict(list)
    for _ in range(rounds):
        for name in ("SQLite", "PostgreSQL"):
            for commit, tree in run.trees.items():
                database = run.sqlite() if name == "SQLite" else await run.postgresql()
                async with started(run.folder, database, NOBODY, tree=tree) as server:
                    for way, pace in (await _measured(server, single, calls)).items():
                        paces[name, way, commit].append(pace)
                        rate = pace.number / pace.seconds
                        run.note(f"registrations a second, {name}, {way}", commit, rate)
    columns = ["database", "way", "code", "CPU µs each", "a second", "median ms a call", "p99 ms"]
    show(columns, [[*key, *_row(several)] for key, several in sorted(paces.items())])
    print(
        f"\nA whole `batchbell serve`, workers and all, whose provider does not answer. Single:"
        f" {single:,} calls by {CALLERS} clients\nthat keep their connections. In bulk: {calls}"
        f" calls, one after the other, {BULK:,} watches each. The best of {rounds} rounds, by"
        " turns.\nWhat was answered with 201 is on disk."
    )


def _row(several: Sequence[Pace]) -> list[str]:
    ms = [[1000 * seconds for seconds in one.latencies] for one in several]
    return [
        f"{min(1e6 * one.cpu_seconds / one.number for one in several):.0f}",
        f"{max(one.number / one.seconds for one in several):,.0f}",
        f"{min(map(statistics.median, ms)):.1f}",
        f"{min(percentile(one, 99) for one in ms):.1f}",
    ]


async def _measured(server: Server, single: int, calls: int) -> dict[str, Pace]:
    """Each way, after a first few that are not counted."""
    ways: list[tuple[str, Way, int, int]] = [
        ("awaiter", _awaited, single, CALLERS),
        ("watch", _watched, single, CALLERS),
        ("watches in bulk", _in_bulk, calls * BULK, 1),
    ]
    made = 0
    paces = {}
    for name, way, number, callers in ways:
        for counted in (max(BULK, number // 10), number):
            ids = [f"batch_{made + n}" for n in range(counted)]
            made += counted
            paces[name] = await _pace(server, way(server.url, ids), counted, callers=callers)
    await _check(server, made)
    return paces


async def _pace(server: Server, requests: Requests, number: int, *, callers: int) -> Pace:
    cpu, begun = cpu_seconds(server.pid), time.perf_counter()
    latencies = await call_all(server.url, requests, callers=callers)
    seconds = time.perf_counter() - begun
    pace = Pace(number, seconds, cpu_seconds(server.pid) - cpu, latencies)
    print(f"{1e6 * pace.cpu_seconds / number:.0f} µs", end=" ", file=sys.stderr, flush=True)
    return pace


def _awaited(url: str, ids: Sequence[str]) -> Requests:
    return [
        posted(url, "/batch-awaiter", _json({"id": id, "webhookUrl": _hook(number)}))
        for number, id in enumerate(ids)
    ]


def _watched(url: str, ids: Sequence[str]) -> Requests:
    return [
        posted(url, "/v1/watches", _json({"batch_id": id, "url": _hook(number)}))
        for number, id in enumerate(ids)
    ]


def _in_bulk(url: str, ids: Sequence[str]) -> Requests:
    wanted = [{"batch_id": id, "url": _hook(number)} for number, id in enumerate(ids)]
    chunks = [wanted[start : start + BULK] for start in range(0, len(ids), BULK)]
    return [posted(url, "/v1/watches", _json(chunk)) for chunk in chunks]


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _hook(number: int) -> str:
    return f"http://127.0.0.1:9/hook/{number % ENDPOINTS}"


async def _check(server: Server, number: int) -> None:
    """The server counts as many new watches as we had made."""
    async with (
        aiohttp.ClientSession(server.url) as session,
        session.get("/metrics") as answer,
    ):
        lines = (await answer.text()).splitlines()
    counted = [line.split()[-1] for line in lines if 'registrations_total{created="true"}' in line]
    assert [float(one) for one in counted] == [number], counted
