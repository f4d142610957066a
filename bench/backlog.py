"""Deliveries that wait: written as an end of many batches at once would write them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from batchbell.core.model import DEFAULT_PROJECT, Dialect, EventType
from batchbell.storage.bulk import insert_missing
from batchbell.storage.engine import DELIVERIES, Store, wake
from batchbell.storage.schema import accounts, attempts, batches, deliveries, endpoints, events
from bench.run import mint, opened

BODY_BYTES = 1024
CHUNK = 5000


def body(event_id: str, batch_id: str) -> str:
    """An event's body of 1 KB."""
    head = (
        f'{{"id":"{event_id}","object":"event","type":"batch.completed","created_at":1790000000,'
        f'"timestamp":"2026-09-21T14:13:20Z","data":{{"id":"{batch_id}","status":"completed","metadata":{{"filling":"'
    )
    return head + "x" * (BODY_BYTES - len(head) - 4) + '"}}}'


class Backlog:
    """Fills one database; `urls` are the endpoints, taken in turn.

    The database is open only while it is written: SQLite serves one process.
    """

    def __init__(self, database_url: str, urls: Sequence[str], dialect: Dialect) -> None:
        self.database_url = database_url
        self._urls = urls
        self._dialect = dialect
        self.endpoint_ids = [mint("ep") for _ in urls]
        self._account = mint("acc")
        self._name = self._account[-12:]
        self.total = 0

    async def add(self, number: int, *, due_at: float | None = None) -> None:
        """Let so many deliveries wait, each of an event of its own: now, or until a time."""
        async with opened(self.database_url) as store:
            for start in range(0, number, CHUNK):
                await self.put(store, min(CHUNK, number - start), due_at=due_at)

    async def put(self, store: Store, number: int, *, due_at: float | None = None) -> None:
        """The same in an open store, in one transaction."""
        if self.total == 0:
            await self.stage(store)
        await store.write(self._write, range(self.total, self.total + number), due_at)
        self.total += number

    async def stage(self, store: Store) -> None:
        """Write the account and the endpoints, if they are not there yet."""
        await store.write(self._write_stage)

    async def check(self) -> None:
        """All that ever waited was delivered, with one attempt each."""
        async with opened(self.database_url) as store:
            delivered, tried, twice = await store.read(_counts, self.endpoint_ids)
        assert (delivered, tried, twice) == (self.total, self.total, 0), (delivered, tried, twice)

    def _write_stage(self, connection: Connection) -> None:
        now = time.time()
        account = {
            "id": self._account,
            "project_id": DEFAULT_PROJECT,
            "name": self._name,
            "provider": "openai",
            "base_url": "http://127.0.0.1/v1",
            "state": "active",
            "failures": 0,
            "due_at": now,
            "not_before": 0.0,
            "created_at": now,
        }
        insert_missing(connection, accounts, [account])
        rows = [
            {
                "id": id,
                "project_id": DEFAULT_PROJECT,
                "url": url,
                "state": "active",
                "failures": 0,
                "created_at": now,
            }
            for id, url in zip(self.endpoint_ids, self._urls, strict=True)
        ]
        insert_missing(connection, endpoints, rows)

    def _write(self, connection: Connection, numbers: range, due_at: float | None) -> None:
        now = time.time()
        same = {"project_id": DEFAULT_PROJECT}
        ids = [f"batch_{self._name}{number:020x}" for number in numbers]
        batch = {
            "account_id": self._account,
            "status": "completed",
            "generation": 1,
            "registered_at": now,
            "updated_at": now,
            "ended_at": now,
            "check_at": 0.0,
        }
        insert_missing(connection, batches, [{**same, **batch, "id": id} for id in ids])
        keys = dict(
            connection.execute(
                select(batches.c.id, batches.c.key).where(batches.c.id.between(ids[0], ids[-1]))
            ).all()
        )
        told = [(mint("evt"), id) for id in ids]
        event = {
            "type": EventType.COMPLETED,
            "generation": 1,
            "created_at": now,
            "recorded_at": now,
        }
        insert_missing(
            connection,
            events,
            [
                {**same, **event, "id": e, "batch_key": keys[b], "batch_id": b, "body": body(e, b)}
                for e, b in told
            ],
        )
        delivery = {
            "event_type": EventType.COMPLETED,
            "dialect": self._dialect,
            "watch_metadata": "{}",
            "state": "pending",
            "attempts": 0,
            "attempts_before": 0,
            "due_at": due_at or now,
            "created_at": now,
        }
        places = len(self.endpoint_ids)
        insert_missing(
            connection,
            deliveries,
            [
                {
                    **same,
                    **delivery,
                    "id": mint("dlv"),
                    "event_id": e,
                    "batch_id": b,
                    "endpoint_id": self.endpoint_ids[number % places],
                    "watch_id": mint("wat"),
                }
                for number, (e, b) in zip(numbers, told, strict=True)
            ],
        )
        wake(connection, DELIVERIES)


def _counts(connection: Connection, endpoint_ids: Sequence[str]) -> tuple[int, int, int]:
    """How many are delivered, how many attempts there are, and how many of those are seconds."""
    own = deliveries.c.endpoint_id.in_(endpoint_ids)
    delivered = select(func.count()).where(own, deliveries.c.state == "delivered")
    tried = select(func.count()).select_from(attempts.join(deliveries)).where(own)
    twice = tried.where(attempts.c.number > 1)
    a, b, c = (connection.execute(query).scalar_one() for query in (delivered, tried, twice))
    return a, b, c
