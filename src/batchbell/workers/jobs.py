"""Jobs: what a worker has under way at once, shared fairly by accounts and projects.

No worker itself: the collector, the submitter and the seeker each have `Jobs`. A job is a task
that works on one row, which is held under a lease.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from batchbell.core.errors import StoreUnavailable
from batchbell.core.turns import Waiting, with_room
from batchbell.observability import Metrics
from batchbell.storage.engine import Signal
from batchbell.workers.loop import rest_seconds

log = structlog.get_logger("batchbell.worker")

T = TypeVar("T")
Held = TypeVar("Held")

HOLDS = 4
"""A lease is lengthened so often before it would run out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How many jobs a worker has at once, in all and of one owner."""

    most: int
    of_account: int
    of_project: int


class Jobs:
    """See the module. `signal` is set whenever a job has ended, since there is room again."""

    def __init__(self, name: str, shares: Shares, *, signal: Signal, metrics: Metrics) -> None:
        self._name = name
        self._shares = shares
        self._signal = signal
        self._metrics = metrics
        self._under_way: dict[asyncio.Task[None], tuple[str, str]] = {}
        """With the account and the project of each."""

    @property
    def under_way(self) -> int:
        """Jobs that have not ended."""
        return len(self._under_way)

    @property
    def full(self) -> bool:
        """Whether no other job may begin now, whoever it is of."""
        return self.under_way >= self._shares.most

    def of_accounts(self) -> Mapping[str, int]:
        """How many jobs each account has."""
        return Counter(account for account, _ in self._under_way.values())

    def with_room(self, waiting: Iterable[Waiting]) -> list[Waiting]:
        """The accounts that may have one more job, whose turn it is first."""
        if self.full:
            return []
        return with_room(
            waiting,
            of_account=self.of_accounts(),
            of_project=Counter(project for _, project in self._under_way.values()),
            most_of_account=self._shares.of_account,
            most_of_project=self._shares.of_project,
        )

    async def begin_next(
        self,
        waiting: Iterable[Waiting],
        claim: Callable[[str], Awaitable[Held | None]],
        work: Callable[[Held], Coroutine[Any, Any, None]],
        *,
        now: float,
    ) -> bool:
        """Claim one row of an account whose turn it is, and work on it; whether there was one."""
        for one in self.with_room(waiting):
            if one.due_at > now:
                continue
            held = await claim(one.account_id)
            if held is not None:
                self.begin(work(held), account_id=one.account_id, project_id=one.project_id)
                return True
        return False

    def begin(
        self, work: Coroutine[Any, Any, None], *, account_id: str, project_id: str = ""
    ) -> None:
        """Have a job done beside the others."""
        task = asyncio.create_task(work)
        self._under_way[task] = account_id, project_id
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._signal.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._metrics.worker_failures.labels(self._name).inc()
            log.error(
                "job failed; its lease will run out",
                worker=self._name,
                error=repr(error),
                exc_info=error,
            )

    def idle_seconds(self, waiting: Iterable[Waiting], *, now: float) -> float:
        """How long to rest: until an account with room is due, or a job has ended (`signal`)."""
        due = min((one.due_at for one in self.with_room(waiting)), default=None)
        return rest_seconds(due, now=now)

    async def ended(self) -> None:
        """Wait until nothing is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def close(self) -> None:
        """Cut off what is under way: whoever claims it next begins where it was last written."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)


async def holding(
    work: Coroutine[Any, Any, T], hold: Callable[[], Awaitable[None]], *, lease_seconds: float
) -> T:
    """Do work that may take longer than its lease: `hold` lengthens the lease meanwhile.

    While the database cannot be reached the work goes on for as long as the lease lasts. Raises
    LeaseLost and StoreUnavailable, and ends the work then.
    """
    task = asyncio.create_task(work)
    missed = 0
    try:
        while not (await asyncio.wait({task}, timeout=lease_seconds / HOLDS))[0]:
            try:
                await hold()
                missed = 0
            except StoreUnavailable:
                missed += 1
                if missed >= HOLDS - 1:
                    raise
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
