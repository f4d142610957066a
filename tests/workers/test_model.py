"""Any sequence of answers, jumps of the clock, crashes, disables and resends, against a model.

The model is tiny: which deliveries there are, and which of them their receiver has taken. One
endpoint has order, one a limited rate. The storage is a real SQLite file; only the clock and the
sender are not real.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Connection, text, update
from tests.conftest import SECRET, Clock
from tests.workers.calling import Calling

from batchbell.core.backoff import SCHEDULE_SECONDS
from batchbell.core.model import DEFAULT_PROJECT, Snapshot, Status, new_id
from batchbell.core.outcome import Fault, Outcome
from batchbell.core.slots import MOST
from batchbell.observability import Metrics
from batchbell.storage import batches, deliveries, watches
from batchbell.storage.accounts import ensure_account
from batchbell.storage.engine import Store
from batchbell.storage.opening import open_store
from batchbell.storage.projects import ensure_project
from batchbell.storage.schema import endpoints
from batchbell.storage.watches import Registration
from batchbell.workers.dispatcher import Dispatcher
from batchbell.workers.janitor import Janitor

T = TypeVar("T")

IN_FLIGHT = 10
ORDERED, LIMITED = "https://ordered.example/", "https://limited.example/"
URLS = ("https://one.example/", ORDERED, LIMITED)
RATE = 3.0
WISHES = {ORDERED: {"ordered": True}, LIMITED: {"rate_limit": RATE}}
ANSWERS = {
    "ok": Outcome(status=200),
    "down": Outcome(status=500),
    "gone": Outcome(status=410),
    "busy": Outcome(status=429, retry_after_seconds=90.0),
    "overloaded": Outcome(status=503),
    "timeout": Outcome(fault=Fault.TIMEOUT),
    "moved": Outcome(status=302, location="https://elsewhere.example/"),
}


class Receivers(Calling):
    """A sender whose calls are answered as each endpoint is told to answer; some never are."""

    def __init__(self, clock: Clock, first_waiting: Callable[[str], Awaitable[str]]) -> None:
        self.clock = clock
        self.first_waiting = first_waiting
        self.wrongs: list[str] = []
        """Calls that should not have been made. Not raised: the dispatcher lives through that."""
        self.answers = dict.fromkeys(URLS, "ok")
        self.sent: Counter[tuple[str, str]] = Counter()
        self.under_way: Counter[str] = Counter()
        self.most_under_way: Counter[str] = Counter()
        self.most_in_all = 0
        self.limited_at: list[float] = []
        """When the limited one was called, since the clock last went back."""
        self.crashing = False

    async def send(self, url: str, headers: Mapping[str, str]) -> Outcome:
        await self.look(url, headers["webhook-id"])
        self.sent[url, headers["webhook-id"]] += 1
        self.under_way[url] += 1
        self.most_under_way[url] = max(self.most_under_way[url], self.under_way[url])
        self.most_in_all = max(self.most_in_all, self.under_way.total())
        try:
            await (asyncio.Event().wait() if self.crashing else asyncio.sleep(0))
            return ANSWERS[self.answers[url]]
        finally:
            self.under_way[url] -= 1

    async def look(self, url: str, event_id: str) -> None:
        """Whether this call may be made now."""
        if url == LIMITED:
            self.limited_at.append(self.clock())
        if url == ORDERED and self.under_way[url]:
            self.wrongs.append(f"{event_id}: two at once")
        if url == ORDERED and await self.first_waiting(url) != event_id:
            self.wrongs.append(f"{event_id}: out of order")


class Deliveries(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="batchbell-model-"))
        self.clock, numbers = Clock(), count(1)
        self.mint = lambda prefix: new_id(prefix, now=0.0, rand=next(numbers).to_bytes(10, "big"))
        self.receivers = Receivers(self.clock, self.first_waiting)
        self.made = 0
        self.crashes = 0
        self.lives: dict[str, tuple[int, int]] = {}
        """Of each delivery: the attempts before it was last sent again, and the calls by then."""
        self.done: dict[tuple[str, str], int] = {}
        """How often what has been delivered had been sent by then."""
        self.store: Store = self.run(open_store(f"sqlite:///{self.folder}/model.db"))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        self.run(
            self.store.write(ensure_project, id=DEFAULT_PROJECT, secret=SECRET, now=self.clock())
        )
        self.account = self.run(self._account())
        self.start()

    async def _account(self) -> Any:
        return await self.store.write(
            ensure_account,
            project_id=DEFAULT_PROJECT,
            name="openai",
            provider="openai",
            base_url="https://api.example/v1",
            mint=self.mint,
            now=self.clock(),
        )

    def start(self) -> None:
        async def made() -> Dispatcher:
            return Dispatcher(
                self.store,
                self.receivers,
                clock=self.clock,
                mint=self.mint,
                rand=lambda: 0.0,
                metrics=Metrics(),
                max_in_flight=IN_FLIGHT,
            )

        self.dispatcher: Dispatcher = self.run(made())
        self.janitor = Janitor(
            self.store, clock=self.clock, retention_days=10_000, attempt_retention_days=10_000
        )

    @rule(number=st.integers(1, 12), url=st.sampled_from(URLS))
    def an_event_happens(self, number: int, url: str) -> None:
        ids = [f"batch_{self.made + n}" for n in range(number)]
        self.made += number
        wanted = [Registration(account_id=self.account.id, batch_id=id, url=url) for id in ids]
        ends = [Snapshot(id=id, provider_status="completed", status=Status.COMPLETED) for id in ids]
        how = {"mint": self.mint, "now": self.clock()}
        self.run(self.store.write(watches.register, DEFAULT_PROJECT, wanted, **how))
        if wishes := WISHES.get(url):
            wish = update(endpoints).where(endpoints.c.url == url).values(wishes)
            self.run(self.store.write(lambda connection: connection.execute(wish).rowcount))
        account = {"account_id": self.account.id}
        self.run(self.store.write(batches.observe, sightings=ends, **account, **how))

    @rule(url=st.sampled_from(URLS), answer=st.sampled_from(sorted(ANSWERS)))
    def an_endpoint_answers_otherwise(self, url: str, answer: str) -> None:
        self.receivers.answers[url] = answer

    @rule(seconds=st.sampled_from([0, 1, 6, 31, 60, 130, 900, 3600, -3600, 86_400]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        if seconds < 0:
            self.receivers.limited_at.clear()

    @rule()
    def what_is_due_is_sent(self) -> None:
        self.run(self._deliver())

    async def _deliver(self) -> None:
        rounds = 0
        while await self.dispatcher.step():
            await self.dispatcher.calls_ended()
            rounds += 1
            assert rounds < 50 + 5 * self.made, "a storm"

    @rule()
    def the_process_dies(self) -> None:
        """Some calls are under way, and nobody will ever know what came of them."""
        self.run(self._crash())
        self.start()

    async def _crash(self) -> None:
        self.crashes += 1
        self.receivers.crashing = True
        await self.dispatcher.step()
        for _ in range(3):
            await asyncio.sleep(0)
        self.dispatcher._ring._calls_most = 0  # a call that ends here starts no other
        while calls := asyncio.all_tasks() - {asyncio.current_task()}:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        self.receivers.crashing = False

    @rule()
    def the_janitor_comes(self) -> None:
        self.run(self.janitor.step())

    @rule(data=st.data())
    def somebody_sends_again(self, data: st.DataObject) -> None:
        rows = self.rows()
        if rows:
            row = data.draw(st.sampled_from(rows))
            self.done.pop((row.url, row.event_id), None)
            self.run(
                self.store.write(deliveries.resend, DEFAULT_PROJECT, row.event_id, now=self.clock())
            )

    async def first_waiting(self, url: str) -> str:
        query = text(
            "SELECT d.event_id FROM deliveries d JOIN endpoints e ON e.id = d.endpoint_id"
            " WHERE e.url = :url AND d.state = 'pending' ORDER BY d.id LIMIT 1"
        )
        row = await self.store.read(
            lambda connection: connection.execute(query, {"url": url}).one()
        )
        return str(row.event_id)

    def rows(self) -> list[Any]:
        query = text(
            "SELECT d.*, e.url FROM deliveries d JOIN endpoints e ON e.id = d.endpoint_id"
            " ORDER BY d.id"
        )

        def read(connection: Connection) -> list[Any]:
            return list(connection.execute(query).all())

        return list(self.run(self.store.read(read)))

    @invariant()
    def nothing_is_lost_and_nothing_overrun(self) -> None:
        rows = self.rows()
        assert len(rows) == self.made
        for row in rows:
            counted = row.attempts - row.attempts_before
            assert counted <= len(SCHEDULE_SECONDS) + self.crashes
            sent = self.receivers.sent[row.url, row.event_id]
            assert sent <= row.attempts
            begun = self.lives.get(row.id)
            if begun is None or begun[0] != row.attempts_before:
                begun = self.lives[row.id] = (row.attempts_before, sent)
            assert sent - begun[1] <= len(SCHEDULE_SECONDS), "the schedule is overrun"
            if row.state == "delivered":
                assert sent == self.done.setdefault((row.url, row.event_id), sent), "sent again"

    @invariant()
    def no_limit_is_passed(self) -> None:
        assert self.receivers.most_in_all <= IN_FLIGHT
        assert all(most <= MOST for most in self.receivers.most_under_way.values())
        assert self.receivers.wrongs == []

    @invariant()
    def no_rate_is_overrun(self) -> None:
        called = self.receivers.limited_at
        for i, begin in enumerate(called):
            for number, end in enumerate(called[i:], 1):
                assert number <= RATE + RATE * (end - begin) + 0.01

    def teardown(self) -> None:
        """Whatever happened: once the receivers are well, all that waits is delivered."""
        try:
            self.receivers.answers = dict.fromkeys(URLS, "ok")
            for _ in range(4 + self.made):
                self.clock.advance(2 * 86_400)
                self.run(self._deliver())
                self.run(self.janitor.step())
                if not (waiting := [row for row in self.rows() if row.state == "pending"]):
                    break
            assert waiting == [], "stuck"
            self.nothing_is_lost_and_nothing_overrun()
        finally:
            self.run(self.store.close())
            self.runner.close()
            shutil.rmtree(self.folder)


TestDeliveries = pytest.mark.long(Deliveries.TestCase)
TestDeliveries.settings = settings(
    max_examples=16 if "CI" in os.environ else 8,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
