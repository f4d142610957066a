"""What one project does must change nothing for the others, however many endpoints it has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from sqlalchemy import Connection, func, select
from tests.conftest import SECRET, Clock
from tests.storage.scene import Scene, snapshot
from tests.workers.calling import Calling

from batchbell.core.model import Account, Mint
from batchbell.core.outcome import Fault, Outcome
from batchbell.observability import Metrics
from batchbell.storage import accounts, batches, projects, watches
from batchbell.storage.engine import Store
from batchbell.storage.schema import deliveries
from batchbell.storage.watches import Registration
from batchbell.workers.dispatcher import CLAIM_MOST, CLAIM_STEP, Dispatcher
from batchbell.workers.ring import calls_most

BAD = 2_000
CALLS = 200


@dataclass
class Sender(Calling):
    """Calls to `bad` hosts hang until they are released; others are answered at once."""

    hanging: int = 0
    sent: list[str] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, url: str, headers: Mapping[str, str]) -> Outcome:
        if "bad" in url:
            self.hanging += 1
            await self.released.wait()
            self.hanging -= 1
            return Outcome(fault=Fault.TIMEOUT, started_at=1.0, duration_ms=15_000.0)
        self.sent.append(url)
        return Outcome(status=200, started_at=1.0, duration_ms=1.0)


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
async def dispatcher(
    store: Store, sender: Sender, clock: Clock, mint: Mint
) -> AsyncIterator[Dispatcher]:
    chance = {"clock": clock, "mint": mint, "rand": lambda: 0.5, "metrics": Metrics()}
    made = Dispatcher(store, sender, max_in_flight=CALLS, **chance)  # type: ignore[arg-type]
    yield made
    sender.released.set()
    await made.close()


async def project(store: Store, name: str, mint: Mint, clock: Clock) -> Account:
    now = clock()
    await store.write(projects.ensure_project, id=name, secret=SECRET, now=now)
    how = {"name": "openai", "provider": "openai", "base_url": "x", "mint": mint, "now": now}
    return await store.write(accounts.ensure_account, project_id=name, **how)


async def due(store: Store, account: Account, urls: list[str], mint: Mint, clock: Clock) -> None:
    """One delivery for each URL, due now."""
    ids = [f"batch_{mint('x')}" for _ in urls]
    wanted = [
        Registration(account_id=account.id, batch_id=id, url=url)
        for id, url in zip(ids, urls, strict=True)
    ]
    how = {"mint": mint, "now": clock()}
    await store.write(watches.register, account.project_id, wanted, **how)
    seen = [snapshot(id) for id in ids]
    await store.write(batches.observe, account_id=account.id, sightings=seen, **how)


async def step_until_idle(dispatcher: Dispatcher) -> None:
    while await dispatcher.step():  # noqa: ASYNC110 - a step gives way to others
        await asyncio.sleep(0)


@pytest.mark.databases("sqlite")
async def test_two_thousand_hanging_urls_of_one_project_delay_no_other(
    store: Store, dispatcher: Dispatcher, sender: Sender, clock: Clock, mint: Mint
) -> None:
    bad = await project(store, "bad", mint, clock)
    good = await project(store, "good", mint, clock)
    urls = [f"https://bad.example/{n}" for n in range(BAD)]
    await due(store, bad, urls, mint, clock)
    await step_until_idle(dispatcher)
    assert sender.hanging == CALLS, "alone, it may have all calls"
    await due(store, good, ["https://good.example/1"] * 30, mint, clock)
    for _ in range(3):
        await step_until_idle(dispatcher)
    async with asyncio.timeout(30):
        while len(sender.sent) < 30:
            await step_until_idle(dispatcher)
            await asyncio.sleep(0.01)
    assert sender.hanging == CALLS, "not one call of the others had to end before"
    assert calls_most(CALLS) == CALLS * 5 // 4


async def test_a_claim_takes_of_the_projects_by_turns(
    store: Store, clock: Clock, mint: Mint
) -> None:
    """Else whose endpoints come later in the ring waits until all before have been served."""
    few, many = ("zz", 3), ("aa", 50)
    made = {}
    for name, number in (many, few):
        account = made[name] = await project(store, name, mint, clock)
        urls = [f"https://{name}.example/{n}" for n in range(number) for _ in range(5)]
        await due(store, account, urls, mint, clock)
    scene = Scene(store, made["aa"], mint, clock)
    claim = await scene.claim(limit=10, room=2)
    owners = [claim.endpoints[one.endpoint_id].project_id for one in claim.deliveries]
    assert owners.count("zz") >= 4
    assert claim.more
    assert CLAIM_MOST > 10


def leased(connection: Connection) -> int:
    """How many deliveries a worker holds."""
    query = select(func.count()).where(deliveries.c.lease_token.isnot(None))
    number: int = connection.execute(query).scalar_one()
    return number


async def test_the_first_claim_takes_a_few_of_many_so_that_all_calls_begin_soon(
    store: Store, dispatcher: Dispatcher, sender: Sender, clock: Clock, mint: Mint
) -> None:
    account = await project(store, "many", mint, clock)
    urls = [f"https://bad.example/{n}" for n in range(60) for _ in range(20)]
    await due(store, account, urls, mint, clock)
    assert await dispatcher.step()
    assert await store.read(leased) == 2 * CALLS
    await asyncio.sleep(0)
    assert sender.hanging == CALLS, "no endpoint holds the calls up that others can have"


async def test_a_claim_leaves_what_others_can_send_meanwhile(
    store: Store, dispatcher: Dispatcher, clock: Clock, mint: Mint
) -> None:
    account = await project(store, "many", mint, clock)
    urls = [f"https://bad.example/{n}" for n in range(60) for _ in range(20)]
    await due(store, account, urls, mint, clock)
    await dispatcher.step()
    claimed = [0, await store.read(leased)]
    while await dispatcher.step():
        claimed.append(await store.read(leased))
    assert max(b - a for a, b in pairwise(claimed)) <= CLAIM_STEP
    assert claimed[-1] >= CLAIM_MOST // 2


async def test_a_ring_that_was_left_in_the_middle_is_walked_from_its_beginning_at_once(
    store: Store, sender: Sender, clock: Clock, mint: Mint
) -> None:
    """Else what waits there would wait until the dispatcher looks again by itself."""
    account = await project(store, "many", mint, clock)
    urls = ["https://bad.example/1"] * 30 + ["https://bad.example/2"] * 2
    await due(store, account, urls, mint, clock)
    chance = {"clock": clock, "mint": mint, "rand": lambda: 0.5, "metrics": Metrics()}
    dispatcher = Dispatcher(store, sender, max_in_flight=5, **chance)  # type: ignore[arg-type]
    await step_until_idle(dispatcher)
    assert await store.read(leased) == len(urls)
    sender.released.set()
    await dispatcher.close()
