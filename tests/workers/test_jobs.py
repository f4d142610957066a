"""What a worker has under way at once, and how it keeps its leases."""

from __future__ import annotations

import asyncio

import pytest

from batchbell.core.errors import LeaseLost, StoreUnavailable
from batchbell.core.turns import Waiting
from batchbell.observability import Metrics
from batchbell.storage.engine import Signal
from batchbell.workers.jobs import HOLDS, Jobs, Shares, holding
from batchbell.workers.loop import LOOK_SECONDS

NOW = 100.0


class Accounts:
    """Accounts that always have one more row to work on; each job lasts until it is let go."""

    def __init__(self, shares: Shares) -> None:
        self.signal, self.metrics = Signal(), Metrics()
        self.jobs = Jobs("tester", shares, signal=self.signal, metrics=self.metrics)
        self.begun: list[str] = []
        self.go = asyncio.Event()
        self.empty: set[str] = set()

    async def claim(self, account_id: str) -> str | None:
        return None if account_id in self.empty else account_id

    async def work(self, account_id: str) -> None:
        self.begun.append(account_id)
        await self.go.wait()
        if account_id == "broken":
            raise ValueError(account_id)

    async def begin_all(self, *waiting: Waiting) -> list[str]:
        """Whose jobs were begun until none may begin any more."""
        while await self.jobs.begin_next(waiting, self.claim, self.work, now=NOW):  # noqa: ASYNC110
            await asyncio.sleep(0)  # until the task has begun
        return self.begun


def waiting(account: str, project: str = "", due_at: float = NOW) -> Waiting:
    return Waiting(account_id=account, project_id=project, due_at=due_at)


async def test_accounts_and_projects_share_the_places_and_none_has_them_all() -> None:
    accounts = Accounts(Shares(most=5, of_account=2, of_project=3))
    accounts.empty = {"taken"}
    due = (waiting("taken", "c", 1.0), waiting("a", "p", 5.0), waiting("b", "p", 6.0),
           waiting("later", "q", NOW + 3), waiting("d", "r", 7.0))  # fmt: skip
    assert await accounts.begin_all(*due) == ["a", "d", "b", "d", "a"]
    assert accounts.jobs.full
    assert not await accounts.jobs.begin_next(due, accounts.claim, accounts.work, now=NOW)
    assert accounts.jobs.idle_seconds(due, now=NOW) == LOOK_SECONDS, "an end is heard at once"
    accounts.go.set()
    await accounts.jobs.ended()
    assert await accounts.signal.wait(30)
    assert accounts.jobs.under_way == 0
    assert accounts.jobs.idle_seconds([waiting("later", "q", NOW + 3)], now=NOW) == 3


async def test_a_job_that_fails_is_counted_and_frees_its_place() -> None:
    accounts = Accounts(Shares(most=1, of_account=1, of_project=1))
    accounts.go.set()
    accounts.jobs.begin(accounts.work("broken"), account_id="broken")
    await accounts.jobs.ended()
    failures = accounts.metrics.worker_failures.labels("tester")
    assert failures._value.get() == 1
    assert not accounts.jobs.full


async def test_what_is_under_way_is_cut_off_when_its_worker_stops() -> None:
    accounts = Accounts(Shares(most=2, of_account=2, of_project=2))
    await accounts.begin_all(waiting("a"))
    await accounts.jobs.close()
    assert not accounts.jobs.under_way


async def test_work_goes_on_while_the_database_is_away_for_a_part_of_the_lease() -> None:
    away = [True] * (HOLDS - 2) + [False]
    answers, back = away * 3, asyncio.Event()

    async def hold() -> None:
        if not answers:
            back.set()
        elif answers.pop(0):
            raise StoreUnavailable("away")

    async def work() -> str:
        await back.wait()
        return "done"

    assert await holding(work(), hold, lease_seconds=0.0) == "done"


@pytest.mark.parametrize(
    ("error", "holds"), [(LeaseLost("x"), 1), (StoreUnavailable("x"), HOLDS - 1)]
)
async def test_work_ends_with_its_lease(error: Exception, holds: int) -> None:
    held = 0
    cut_off = False

    async def hold() -> None:
        nonlocal held
        held += 1
        raise error

    async def work() -> None:
        nonlocal cut_off
        try:
            await asyncio.Event().wait()
        finally:
            cut_off = True

    with pytest.raises(type(error)):
        await holding(work(), hold, lease_seconds=0.0)
    assert (held, cut_off) == (holds, True)
