"""A database in which much has happened: four weeks of batches with their events and deliveries.

Rows are written in bulk, as the server would have written them one by one. What there is to look
for is named in `Sights`: what is frequent, what is rare, and what lies in the middle of a list.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy import Connection, text

from batchbell.core import payload
from batchbell.core.ids import new_id
from batchbell.core.lifecycle import EVENT_OF
from batchbell.core.model import (
    DEFAULT_EVENTS,
    DEFAULT_PROJECT,
    Batch,
    BatchKind,
    BatchProblem,
    Counts,
    Dialect,
    EventType,
    Snapshot,
    Status,
    StatusChange,
)
from batchbell.storage import batches as stored
from batchbell.storage.bulk import insert_missing
from batchbell.storage.projects import ensure_project
from batchbell.storage.schema import (
    accounts,
    attempts,
    batches,
    deliveries,
    endpoints,
    events,
    parts,
    submissions,
    watches,
)
from bench.run import SECRET, Run, opened

SPAN_SECONDS = 28 * 86400.0
LASTED_SECONDS = 1800.0
DAY_SECONDS = 86400.0
PROBE_SECONDS = 900.0
CHUNK = 1000
OPEN_SHARE = 0.03
OTHER = "other"
ACCOUNTS = (
    ("acc_main", DEFAULT_PROJECT, "main", "openai", 60),
    ("acc_eval", DEFAULT_PROJECT, "eval", "openai", 14),
    ("acc_claude", DEFAULT_PROJECT, "claude", "anthropic", 10),
    ("acc_groq", DEFAULT_PROJECT, "groq", "groq", 6),
    ("acc_rare", DEFAULT_PROJECT, "rare", "mistral", 0.05),
    ("acc_none", DEFAULT_PROJECT, "none", "gemini", 0),
    ("acc_other", OTHER, "main", "openai", 10),
)
"""Id, project, name, provider, and how many in a hundred batches are theirs."""
ENDS = {
    Status.COMPLETED: 90,
    Status.FAILED: 5,
    Status.EXPIRED: 2,
    Status.CANCELLED: 2,
    Status.LOST: 1,
}
RUNNING = {Status.IN_PROGRESS: 90, Status.VALIDATING: 5, Status.FINALIZING: 4, Status.CANCELLING: 1}
MODELS = {"gpt-5-mini": 60, "gpt-5": 30, "o4-mini": 9.95, "rare": 0.05}
MANAGED = 20
"""Endpoints of the first project that hear of all its batches."""
URLS = 300
"""And those that watches name."""
SUBMISSION_EVERY = 50
"""Of so many batches the first is a submission, and the next two are its parts."""
WORDS = json.dumps(sorted(DEFAULT_EVENTS))
ANSWER = json.dumps({"content-type": "application/json", "server": "nginx", "date": "Mon"})
ASKED = json.dumps({"content-type": "application/json", "user-agent": "Batchbell", "x": "y" * 80})


@dataclass
class Sights:
    """Ids to ask for, all of the first project."""

    batches: int = 0
    deliveries: int = 0
    events: int = 0
    batch: str = ""
    """In the middle of the list, ended, with deliveries."""
    event: str = ""
    delivery: str = ""
    """Of that batch."""
    seen_at: float = 0.0
    """When it was registered."""
    endpoint: str = "ep_managed_000"
    heard: str = ""
    """An event in the middle of those of the endpoint."""
    open_endpoint: str = "ep_managed_018"
    """Its breaker is open, and deliveries wait for it."""
    disabled_endpoint: str = "ep_managed_019"
    quiet_endpoint: str = "ep_quiet"
    """It never had a delivery."""
    submission: str = ""


async def past_of(run: Run, database: str) -> tuple[str, Sights]:
    """The URL of a database with a past, made once in a run, and what is in it."""
    if ("past", database) not in run.kept:
        url = run.sqlite() if database == "SQLite" else await run.postgresql()
        batches, deliveries = (10_000, 100_000) if run.quick else (100_000, 1_000_000)
        sights = await Past(url, batches=batches, deliveries=deliveries).fill()
        run.kept["past", database] = url, sights
    kept: tuple[str, Sights] = run.kept["past", database]
    return kept


class Past:
    """Fills one database with a past of so many batches, and deliveries of them."""

    def __init__(self, database_url: str, *, batches: int, deliveries: int) -> None:
        self.database_url = database_url
        self.sights = Sights()
        self._batches = batches
        self._deliveries = deliveries
        self._rand = random.Random(7)
        self._now = time.time()
        self._endpoints = {
            DEFAULT_PROJECT: [f"ep_managed_{n:03}" for n in range(MANAGED)],
            OTHER: [f"ep_other_{n:03}" for n in range(3)],
        }

    async def fill(self) -> Sights:
        """Write it, and let the database know what it holds as it would by itself in time."""
        async with opened(self.database_url) as store:
            await store.write(self._stage)
            for start in range(0, self._batches, CHUNK):
                numbers = range(start, min(start + CHUNK, self._batches))
                await store.write(self._write, numbers)
        if self.database_url.startswith("postgresql"):
            await _settle_postgresql(self.database_url)
        return self.sights

    def _stage(self, connection: Connection) -> None:
        began = self._now - SPAN_SECONDS
        ensure_project(connection, id=OTHER, secret=SECRET, now=began)
        common = {
            "base_url": "http://127.0.0.1:1/v1",
            "state": "paused",
            "failures": 0,
            "due_at": self._now,
            "not_before": 0.0,
            "created_at": began,
            "succeeded_at": self._now,
        }
        names = ("id", "project_id", "name", "provider")
        rows = [{**common, **dict(zip(names, one[:4], strict=True))} for one in ACCOUNTS]
        insert_missing(connection, accounts, rows)
        insert_missing(connection, endpoints, [*self._endpoint_rows(began)])

    def _endpoint_rows(self, began: float) -> Iterator[dict[str, Any]]:
        state = {
            "ep_managed_018": ("failing", None, 9, self._now - 7200.0),
            "ep_managed_019": ("disabled", "It answered 410 Gone.", 0, None),
        }
        managed = [(project, id) for project, ids in self._endpoints.items() for id in ids]
        urls = [(DEFAULT_PROJECT, f"ep_url_{n:03}") for n in range(URLS)]
        for project, id in [*managed, (DEFAULT_PROJECT, "ep_quiet"), *urls]:
            how, reason, failures, since = state.get(id, ("active", None, 0, None))
            is_managed = not id.startswith("ep_url")
            yield {
                "id": id,
                "project_id": project,
                "url": f"http://127.0.0.1:1/{id}",
                "state": how,
                "reason": reason,
                "failures": failures,
                "failing_since": since,
                "opened_at": since,
                "probe_at": None if since is None else self._now + PROBE_SECONDS,
                "state_since": since or began,
                "created_at": began,
                "managed": is_managed,
                "name": id if is_managed else None,
                "event_types": WORDS if is_managed else None,
            }

    def _write(self, connection: Connection, numbers: range) -> None:
        if connection.dialect.name == "postgresql":  # what we write needs no check of its keys
            connection.execute(text("SET LOCAL session_replication_role = replica"))
        made = [self._batch(number) for number in numbers]
        insert_missing(connection, batches, [_row(one) for one in made])
        stored.save(connection, made)
        told = [event for one in made for event in self._told(one)]
        insert_missing(connection, watches, [self._watch(one) for one in made])
        insert_missing(connection, events, [event for _, event in told])
        insert_missing(connection, submissions, [*self._submissions(made)])
        insert_missing(connection, parts, [*_parts(made)])
        sent: list[dict[str, Any]] = []
        for done, (one, event) in enumerate(told):
            share = (numbers.start + done * len(numbers) / len(told)) / self._batches
            owed = max(1, round(self._deliveries * share) - self.sights.deliveries)
            sent += self._sent(one, event, min(owed, 6))
        insert_missing(connection, deliveries, sent)
        insert_missing(connection, attempts, [try_ for one in sent for try_ in self._tries(one)])

    def _batch(self, number: int) -> Batch:
        """They come in the order of their registration; the last ones run still."""
        rand, at = self._rand, self._registered_at(number)
        ends = number < self._batches * (1 - OPEN_SHARE)
        status = _one_of(rand, ENDS if ends else RUNNING)
        account = _one_of(rand, {one: one[4] for one in ACCOUNTS})
        ended_at = at + rand.uniform(0.2, 1) * LASTED_SECONDS if ends else None
        kinds = {0: BatchKind.JOINED, 1: BatchKind.PART, 2: BatchKind.PART}
        kind = kinds.get(number % SUBMISSION_EVERY, BatchKind.SINGLE) if ends else BatchKind.SINGLE
        id = f"batch_{rand.getrandbits(128):032x}"
        if kind is BatchKind.JOINED:
            id = self._mint("sub", at)
        self.sights.batches += 1
        return Batch(
            key=number + 1,
            project_id=account[1],
            account_id=account[0],
            account=account[2],
            provider=account[3],
            id=id,
            status=status,
            registered_at=at,
            updated_at=ended_at or at,
            ended_at=ended_at,
            kind=kind,
            progress_at=self._now,
            alarm_at=self._now + DAY_SECONDS,
            snapshot=None if status is Status.LOST else self._snapshot(id, number, status, at),
            history=(StatusChange(at=at, status=status, provider_status=status.value),),
        )

    def _registered_at(self, number: int) -> float:
        left = 1 - number / self._batches
        return self._now - 60.0 - left * SPAN_SECONDS

    def _snapshot(self, id: str, number: int, status: Status, at: float) -> Snapshot:
        rand, total = self._rand, self._rand.randrange(100, 50_000)
        failed = rand.choice((0, 0, 0, 0, total // 50))
        done = {Status.COMPLETED: total - failed, Status.FAILED: 0}.get(status, total // 2)
        metadata = {"team": f"team-{number % 20}", "run": f"run-{number // 500}"}
        if number % 5000 == 77:
            metadata["canary"] = "yes"
        problem = BatchProblem(code="invalid_json_line", message="This line is no JSON.", line=17)
        return Snapshot(
            id=id,
            provider_status=status.value,
            status=status,
            counts=Counts(total=total, completed=done, failed=failed if done else 0),
            endpoint="/v1/chat/completions",
            model=_one_of(rand, MODELS),
            completion_window="24h",
            input_file_id=f"file-{number}-in",
            output_file_id=f"file-{number}-out" if done else None,
            timestamps={"created_at": int(at), "expires_at": int(at) + 86400 + LASTED},
            problems=(problem,) if status is Status.FAILED else (),
            usage={"input_tokens": total * 300, "output_tokens": total * 90},
            metadata=metadata,
        )

    def _watch(self, one: Batch) -> dict[str, Any]:
        return {
            "id": self._mint("wat", one.registered_at),
            "project_id": one.project_id,
            "batch_key": one.key,
            "endpoint_id": f"ep_url_{one.key % URLS:03}",
            "dialect": Dialect.WATCH,
            "events": WORDS,
            "metadata": '{"job":"nightly"}',
            "created_at": one.registered_at,
        }

    def _told(self, one: Batch) -> Iterator[tuple[Batch, dict[str, Any]]]:
        """Its events. All have the body of the last one: they are alike but for their words."""
        types = [EventType.IN_PROGRESS]
        if one.ended_at is not None:
            end = EVENT_OF[one.status]
            types += [EventType.FINALIZING] if one.status is Status.COMPLETED else []
            types += [end]
            types += [EventType.RESULTS_READY] if one.status is Status.COMPLETED else []
        last = one.ended_at or one.registered_at + 1
        body = payload.event_body("@id", types[-1], one, occurred_at=last)
        for place, type_ in enumerate(types):
            at = last - len(types) + place
            id = self._mint("evt", at)
            self.sights.events += 1
            yield (
                one,
                {
                    "id": id,
                    "project_id": one.project_id,
                    "batch_key": one.key,
                    "batch_id": one.id,
                    "type": type_.value,
                    "generation": 1,
                    "created_at": at,
                    "recorded_at": at,
                    "body": body.replace("@id", id),
                },
            )

    def _sent(self, one: Batch, event: dict[str, Any], number: int) -> Iterator[dict[str, Any]]:
        """So many deliveries of the event, the first one to the URL that is watched."""
        own = self._endpoints[one.project_id]
        first = self._rand.randrange(len(own))
        near = [own[(first + n) % len(own)] for n in range(len(own))]
        for endpoint_id in [f"ep_url_{one.key % URLS:03}", *near][:number]:
            self.sights.deliveries += 1
            row = {
                "id": self._mint("dlv", event["recorded_at"]),
                "project_id": one.project_id,
                "event_id": event["id"],
                "event_type": event["type"],
                "batch_id": one.id,
                "endpoint_id": endpoint_id,
                "watch_id": None,
                "dialect": Dialect.WATCH,
                "created_at": event["recorded_at"],
                "attempts_before": 0,
                **self._fate(endpoint_id, event["recorded_at"]),
            }
            self._note(one, row)
            yield row

    def _fate(self, endpoint_id: str, at: float) -> dict[str, Any]:
        """How a delivery stands; what waits is not due while anybody looks."""
        left = {"due_at": None, "finished_at": None, "last_status": 503, "last_error": "HTTP 503"}
        if endpoint_id == self.sights.disabled_endpoint:
            return {**left, "state": "held", "attempts": 0}
        if self._now - at < DAY_SECONDS / 2 and endpoint_id == self.sights.open_endpoint:
            return {**left, "state": "pending", "attempts": 3, "due_at": self._now}
        if self._rand.random() < 0.01:
            if self._now - at < DAY_SECONDS:
                later = self._now + DAY_SECONDS
                return {**left, "state": "pending", "attempts": 4, "due_at": later}
            return {**left, "state": "exhausted", "attempts": 5, "finished_at": at + 9000.0}
        done = {"state": "delivered", "finished_at": at + self._rand.expovariate(2.0)}
        tries = 2 if self._rand.random() < 0.05 else 1
        return {**left, **done, "last_status": 200, "last_error": None, "attempts": tries}

    def _tries(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for number in range(1, row["attempts"] + 1):
            good = row["state"] == "delivered" and number == row["attempts"]
            yield {
                "delivery_id": row["id"],
                "number": number,
                "started_at": row["created_at"] + 60.0 * (number - 1),
                "duration_ms": 41.5,
                "status": 200 if good else 503,
                "remote_address": "127.0.0.1",
                "response_headers": ANSWER,
                "response_body": '{"ok":true}' if good else "Service Unavailable",
                "first_byte_ms": 40.0,
                "request_headers": ASKED,
            }

    def _note(self, one: Batch, row: dict[str, Any]) -> None:
        """Keep what lies in the middle, of the first project."""
        seen = self.sights
        if one.key < self._batches / 2 or one.project_id != DEFAULT_PROJECT:
            return
        if not seen.heard and row["endpoint_id"] == seen.endpoint:
            seen.heard = row["event_id"]
        if not seen.batch and one.status is Status.COMPLETED and one.kind is BatchKind.SINGLE:
            seen.batch, seen.seen_at = one.id, one.registered_at
            seen.event, seen.delivery = row["event_id"], row["id"]

    def _submissions(self, made: list[Batch]) -> Iterator[dict[str, Any]]:
        for one in made:
            if one.kind is BatchKind.JOINED:
                id = one.id
                if one.key > self._batches / 2 and one.project_id == DEFAULT_PROJECT:
                    self.sights.submission = self.sights.submission or id
                yield {
                    "id": id,
                    "project_id": one.project_id,
                    "batch_key": one.key,
                    "model": "gpt-5-mini",
                    "retry_missing": 1,
                    "failures": 0,
                    "created_at": one.registered_at,
                    "account_id": one.account_id,
                }

    def _mint(self, prefix: str, at: float) -> str:
        return new_id(prefix, now=at, rand=self._rand.randbytes(10))


LASTED = int(LASTED_SECONDS)


def _row(one: Batch) -> dict[str, Any]:
    """What `save` leaves as it is, and what must not be missing."""
    return {
        **{name: getattr(one, name) for name in stored.FIXED},
        "status": one.status,
        "generation": 1,
        "updated_at": one.updated_at,
        "ended_at": one.ended_at,
        "check_at": 0.0,
    }


def _parts(made: list[Batch]) -> Iterator[dict[str, Any]]:
    """Each batch that is a part belongs to the submission before it."""
    whole: Batch | None = None
    for one in made:
        if one.kind is BatchKind.JOINED:
            whole = one
        elif one.kind is BatchKind.PART and whole is not None:
            yield {
                "id": new_id("part", now=one.registered_at, rand=one.key.to_bytes(10, "big")),
                "submission_id": whole.id,
                "position": one.key - whole.key - 1,
                "round": 0,
                "state": "ended",
                "lines": 1000,
                "size": 1_000_000,
                "tokens": 300_000,
                "tries": 1,
                "due_at": one.registered_at,
                "intent_at": one.registered_at,
                "batch_key": one.key,
                "looked_through": True,
            }


def _one_of(rand: random.Random, weights: Mapping[Any, float]) -> Any:
    return rand.choices([*weights], [*weights.values()])[0]


async def _settle_postgresql(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(
        "SELECT setval(pg_get_serial_sequence('batches', 'key'), (SELECT max(key) FROM batches))"
    )
    await connection.execute("VACUUM ANALYZE")
    await connection.execute("CHECKPOINT")
    await connection.close()
