"""(o): how long pages of the dashboard and lists of the API take where much has happened."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

import aiohttp

from bench.past import DAY_SECONDS, Sights, past_of
from bench.resident import cpu_seconds
from bench.run import Run
from bench.server import Server, started
from bench.tables import show

AIM_MS = 200.0
NOBODY = "http://127.0.0.1:1/v1"
"""No provider: whoever sweeps would only be heard to fail."""
REST_SECONDS = 2.0


@dataclass(frozen=True)
class Asked:
    """One page, and whether it is to list something: None where it is no list."""

    words: str
    path: str
    finds: bool | None = None


@dataclass(frozen=True)
class Times:
    """Milliseconds of a page, and of the server's processor for one."""

    first: float
    rest: tuple[float, ...]
    cpu: float
    rows: int | None

    @property
    def median(self) -> float:
        return statistics.median(self.rest)


async def run(run: Run) -> None:
    """Pages of the dashboard and of lists, with 100,000 batches and 1,000,000 deliveries"""
    found: dict[str, dict[str, Times]] = {}
    for name in ("SQLite", "PostgreSQL"):
        url, sights = await past_of(run, name)
        async with started(run.folder, url, NOBODY) as server:
            await asyncio.sleep(REST_SECONDS)
            found[name] = await measure(server, sights, rounds=5 if run.quick else 12)
    columns = ["page", "rows"]
    for name in found:
        columns += [f"{name} first", "best", "median", "worst", "CPU"]
    show([*columns, ""], _rows(found))
    print(
        f"\n{sights.batches:,} batches, {sights.events:,} events and {sights.deliveries:,}"
        " deliveries. Milliseconds from the request to the last byte, of one caller; `first` was\n"
        "asked before any of its kind, the others after it. CPU is the server's, without that of"
        f" PostgreSQL. `slow`: a median above {AIM_MS:.0f} ms."
    )


def _rows(found: Mapping[str, Mapping[str, Times]]) -> Iterator[list[str]]:
    databases = [*found.values()]
    for words in databases[0]:
        times = [one[words] for one in databases]
        figures = [
            f"{ms:.0f}"
            for one in times
            for ms in (one.first, min(one.rest), one.median, max(one.rest), one.cpu)
        ]
        slow = "slow" if any(one.median > AIM_MS for one in times) else ""
        rows = "" if times[0].rows is None else f"{times[0].rows}"
        yield [words, rows, *figures, slow]


async def measure(server: Server, sights: Sights, *, rounds: int) -> dict[str, Times]:
    """Ask for every page so often, one after the other."""
    found = {}
    async with aiohttp.ClientSession(server.url) as session:
        for one in [*dashboard(sights), *api(sights)]:
            found[one.words] = await _times(session, server, one, rounds)
            if one.path.startswith("/v1/") and one.finds:
                async with session.get(one.path) as answer:
                    page = await answer.json()
                after = {"after": page["last_id"]} if page["has_more"] else {}
                if after:
                    further = Asked(f"{one.words}, next page", _with(one.path, after))
                    found[further.words] = await _times(session, server, further, rounds)
    return found


async def _times(session: aiohttp.ClientSession, server: Server, one: Asked, rounds: int) -> Times:
    first, body = await _get(session, one)
    before, rest = cpu_seconds(server.pid), []
    for _ in range(rounds):
        rest.append((await _get(session, one))[0])
    cpu = (cpu_seconds(server.pid) - before) / rounds * 1000
    rows = _listed(body) if one.finds is not None else None
    assert rows is None or bool(rows) == one.finds or _has_more(body), f"{one}: {rows} rows"
    return Times(first, tuple(rest), cpu, rows)


async def _get(session: aiohttp.ClientSession, one: Asked) -> tuple[float, bytes]:
    started_at = time.perf_counter()
    async with session.get(one.path) as answer:
        body = await answer.read()
    ms = (time.perf_counter() - started_at) * 1000
    assert answer.status == 200, f"{one}: {answer.status} {body[:300]!r}"
    return ms, body


def _listed(body: bytes) -> int:
    if body.startswith(b"{"):
        return len(json.loads(body)["data"])
    return body.count(b'<tr id="row-')


def _has_more(body: bytes) -> bool:
    """A page may be short, or empty, where a list passes over very much."""
    return bool(json.loads(body)["has_more"]) if body.startswith(b"{") else b"after=" in body


def _with(path: str, query: Mapping[str, str]) -> str:
    return f"{path}{'&' if '?' in path else '?'}{urlencode(query)}"


def dashboard(sights: Sights) -> Iterator[Asked]:
    """Each page, and its filters."""
    for words, path, finds in (
        ("overview", "", None),
        ("overview, 7 d", "?period=7d", None),
        ("batches", "/batches", True),
        ("batches, deep", f"/batches?after={sights.batch}", True),
        ("batches by begin", f"/batches?q={sights.batch[:9]}", True),
        ("batches by begin, nothing", "/batches?q=batch_zz", False),
        ("batches by status", "/batches?status=failed", True),
        ("batches by outcome", "/batches?outcome=partial", True),
        ("batches by rare account", "/batches?account=rare", True),
        ("batches by model, nothing", "/batches?model=nosuch", False),
        ("batches by rare metadata", "/batches?metadata=canary%3Dyes", True),
        ("batches of 24 h", "/batches?hours=24", True),
        ("one batch", f"/batches/{sights.batch}", None),
        ("submissions", "/submissions", True),
        ("one submission", f"/submissions/{sights.submission}", None),
        ("endpoints", "/endpoints", True),
        ("endpoints, implied too", "/endpoints?implied=1", True),
        ("one endpoint", f"/endpoints/{sights.endpoint}", None),
        ("one endpoint, breaker open", f"/endpoints/{sights.open_endpoint}", None),
        ("events", "/events", True),
        ("events not delivered", "/events?delivered=no", True),
        ("events delivered", "/events?delivered=yes", True),
        ("one event", f"/events/{sights.event}", None),
        ("deliveries", "/deliveries", True),
        ("deliveries exhausted", "/deliveries?state=exhausted", True),
        ("deliveries of endpoint", f"/deliveries?endpoint_id={sights.endpoint}", True),
        ("one delivery", f"/deliveries/{sights.delivery}", None),
        ("replays", "/replays", None),
        ("accounts", "/accounts", None),
        ("keys", "/keys", None),
        ("projects", "/projects", None),
        ("settings", "/settings", None),
        ("system", "/system", None),
    ):
        yield Asked(f"page: {words}", f"/dashboard{path}", finds)


def api(sights: Sights) -> Iterator[Asked]:
    """Each list with each filter; deep ones begin in the middle of all that there is."""
    yield from _of_batches(sights)
    yield from _of_deliveries(sights)
    yield from _of_events(sights)
    for words, path, finds in (
        ("watches", "watches", True),
        ("submissions", "submissions", True),
        ("submissions by status, nothing", "submissions?status=validating", False),
        ("endpoints", "webhook_endpoints", True),
        ("accounts", "accounts", True),
        ("replays", "replays", False),
        ("timeline", f"batches/{sights.batch}/timeline", None),
        ("one batch", f"batches/{sights.batch}", None),
        ("one event", f"events/{sights.event}", None),
        ("one delivery", f"deliveries/{sights.delivery}", None),
        ("one endpoint", f"webhook_endpoints/{sights.open_endpoint}", None),
    ):
        yield Asked(words, f"/v1/{path}", finds)
    yield Asked("metrics", "/metrics")
    yield Asked("readyz", "/readyz")


Query = dict[str, str | float]
Queries = Mapping[str, tuple[Query, bool]]


def _day_before(at: float) -> Query:
    return {"since": at - DAY_SECONDS, "until": at}


def _of_batches(sights: Sights) -> Iterator[Asked]:
    day = _day_before(sights.seen_at)
    ended: Query = {f"ended_{name}": at for name, at in day.items()}
    queries: Queries = {
        "": ({}, True),
        " by begin of id": ({"id": sights.batch[:8]}, True),
        " by id": ({"id": sights.batch}, True),
        " by id, nothing": ({"id": "batch_zz"}, False),
        " by status, few": ({"status": "lost"}, True),
        " by status, most": ({"status": "completed"}, True),
        " by outcome": ({"outcome": "partial"}, True),
        " by provider": ({"provider": "anthropic"}, True),
        " by provider, nothing": ({"provider": "gemini"}, False),
        " by account": ({"account": "eval"}, True),
        " by account, rare": ({"account": "rare"}, True),
        " by account, nothing": ({"account": "none"}, False),
        " by model": ({"model": "gpt-5"}, True),
        " by model, rare": ({"model": "rare"}, True),
        " by model, nothing": ({"model": "nosuch"}, False),
        " by metadata": ({"metadata[team]": "team-7"}, True),
        " by metadata, rare": ({"metadata[canary]": "yes"}, True),
        " by metadata, nothing": ({"metadata[canary]": "no"}, False),
        " by time": (day, True),
        " by time of end": (ended, True),
        " by time of end, nothing": ({"ended_until": 1.0}, False),
        " by status, account, model": (
            {"status": "failed", "account": "eval", "model": "o4-mini"},
            True,
        ),
        " by all": ({"status": "completed", "provider": "groq", "outcome": "partial", **day}, True),
    }
    yield from _lists("batches", queries, sights.batch)


def _of_deliveries(sights: Sights) -> Iterator[Asked]:
    day = _day_before(sights.seen_at)
    endpoint: Query = {"endpoint_id": sights.endpoint}
    queries: Queries = {
        "": ({}, True),
        " by state, most": ({"state": "delivered"}, True),
        " by state, few": ({"state": "exhausted"}, True),
        " by batch": ({"batch_id": sights.batch}, True),
        " by batch, nothing": ({"batch_id": "batch_zz"}, False),
        " by event": ({"event_id": sights.event}, True),
        " by endpoint": (endpoint, True),
        " by endpoint, nothing": ({"endpoint_id": sights.quiet_endpoint}, False),
        " by type": ({"type": "batch.expired"}, True),
        " by type, nothing": ({"type": "batch.stalled"}, False),
        " by time": (day, True),
        " by time, nothing": ({"until": 1.0}, False),
        " by endpoint, state": ({**endpoint, "state": "exhausted"}, True),
        " by endpoint, state, nothing": ({**endpoint, "state": "held"}, False),
        " by type, state, time": ({"type": "batch.completed", "state": "delivered", **day}, True),
        " by all": ({**endpoint, "type": "batch.completed", "state": "delivered", **day}, True),
        " by state, time, nothing": ({"state": "pending", "until": sights.seen_at}, False),
    }
    yield from _lists("deliveries", queries, sights.delivery)


def _of_events(sights: Sights) -> Iterator[Asked]:
    day = _day_before(sights.seen_at)
    endpoint: Query = {"endpoint_id": sights.endpoint}
    queries: Queries = {
        "": ({}, True),
        " by type": ({"type": "batch.lost"}, True),
        " by type, nothing": ({"type": "batch.stalled"}, False),
        " by batch": ({"batch_id": sights.batch}, True),
        " by batch, nothing": ({"batch_id": "batch_zz"}, False),
        " by time": (day, True),
        " by time, nothing": ({"until": 1.0}, False),
        " delivered": ({"delivery_success": "true"}, True),
        " not delivered": ({"delivery_success": "false"}, True),
        " not delivered, type": ({"delivery_success": "false", "type": "batch.failed"}, True),
        " delivered, of type": ({"delivery_success": "true", "type": "batch.lost"}, True),
        " by type, time": ({"type": "batch.completed", **day}, True),
    }
    yield from _lists("events", queries, sights.event)
    own: Queries = {
        " by endpoint": (endpoint, True),
        " by endpoint, not delivered": ({**endpoint, "delivery_success": "false"}, True),
        " by endpoint, type, time": ({**endpoint, "type": "batch.completed", **day}, True),
        " by endpoint, nothing": ({"endpoint_id": sights.quiet_endpoint}, False),
    }
    yield from _lists("events", own, sights.heard)


def _lists(noun: str, queries: Queries, middle: str) -> Iterator[Asked]:
    for words, (query, finds) in queries.items():
        path = f"/v1/{noun}"
        whole = _with(path, {name: str(value) for name, value in query.items()}) if query else path
        yield Asked(noun + words, whole, finds)
        if finds and not {"batch_id", "event_id", "id", "until"} & set(query):
            yield Asked(f"{noun}{words}, deep", _with(whole, {"after": middle}))
