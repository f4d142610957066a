"""The submitter: hands in the parts of submissions, tries again what may be, and ends them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import structlog

from batchbell import failpoints
from batchbell.core import submission as rules
from batchbell.core.errors import LeaseLost, ProviderError, ResultsError, ResultsUnavailable
from batchbell.core.model import Batch, Mint, Status
from batchbell.core.submission import Expiry, Part, PartState, Submission, new_name
from batchbell.core.turns import Waiting, with_room
from batchbell.files.rejoining import gather_passing
from batchbell.files.scratch import scratch_folder
from batchbell.files.shelf import Shelf, fetch
from batchbell.observability import Metrics
from batchbell.providers.protocol import Provider
from batchbell.storage import submitting
from batchbell.storage.engine import SUBMISSIONS, Store
from batchbell.storage.submissions import NewPart
from batchbell.threads import heavy
from batchbell.workers.handing_in import HandingIn
from batchbell.workers.splitting import Splitting

log = structlog.get_logger("batchbell.submitter")

LEASE_SECONDS = 120.0
HOLD_SECONDS = LEASE_SECONDS / 4
LOOK_SECONDS = 5.0
NO_EXPIRY = Expiry()
AT_ONCE = 64
"""Submissions under way: each uploads one part at a time, and most wait for a provider."""
OF_PROJECT = 8
OF_ACCOUNT = 4
"""A provider that does not answer holds up its own account only."""


class Submitter:
    """See the module. `provider_of` gives the way to an account's provider, by the account's id."""

    name = "submitter"

    def __init__(
        self,
        store: Store,
        shelf: Shelf,
        provider_of: Callable[[str], Provider | None],
        *,
        clock: Callable[[], float],
        mint: Mint,
        rand: Callable[[], float],
        metrics: Metrics,
        scratch: Path,
        expiry: Expiry = NO_EXPIRY,
    ) -> None:
        self.signal = store.signal(SUBMISSIONS)
        self._store = store
        self._shelf = shelf
        self._provider_of = provider_of
        self._clock = clock
        self._mint = mint
        self._rand = rand
        self._metrics = metrics
        self._scratch = scratch
        self._handing_in = HandingIn(store, shelf, clock=clock, mint=mint, rand=rand, expiry=expiry)
        self._splitting = Splitting(store, shelf, clock=clock, mint=mint)
        self._under_way: dict[asyncio.Task[None], Batch] = {}

    async def step(self) -> bool:
        """Take a submission that is due, of whoever has the fewest under way."""
        if len(self._under_way) >= AT_ONCE:
            return False
        now = self._clock()
        for one in await self._with_room():
            if one.due_at is None or one.due_at > now:
                continue
            held = await self._store.write(
                submitting.claim_due,
                one.account_id,
                now=now,
                lease_seconds=LEASE_SECONDS,
                token=self._mint("lease"),
            )
            if held is not None:
                task = asyncio.create_task(self._go_on(held))
                self._under_way[task] = held.batch
                task.add_done_callback(self._ended)
                return True
        return False

    async def _with_room(self) -> list[Waiting]:
        batches = self._under_way.values()
        return with_room(
            await self._store.read(submitting.waiting),
            of_account=Counter(batch.account_id for batch in batches),
            of_project=Counter(batch.project_id for batch in batches),
            most_of_account=OF_ACCOUNT,
            most_of_project=OF_PROJECT,
        )

    async def ended(self) -> None:
        """Wait until nothing is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self.signal.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._metrics.worker_failures.labels(self.name).inc()
            log.error("step failed; its lease will run out", error=repr(error), exc_info=error)

    async def idle_seconds(self) -> float:
        if len(self._under_way) >= AT_ONCE:
            return LOOK_SECONDS  # the signal is set as soon as one of them has ended
        now = self._clock()
        waits = [one.due_at - now for one in await self._with_room() if one.due_at is not None]
        return min(max(min(waits, default=LOOK_SECONDS), 0.05), LOOK_SECONDS)

    async def close(self) -> None:
        """What is under way is gone on with by whoever comes next."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _go_on(self, held: Submission) -> None:
        try:
            await self._advance_holding(held)
            failpoints.reach(failpoints.BEFORE_FINISH)
            after = await self._store.write(
                submitting.finish, held, mint=self._mint, now=self._clock()
            )
        except LeaseLost:
            log.warning("submission given up: another worker's", submission=held.id)
        except (ProviderError, ResultsError, OSError) as error:
            await self._put_off(held, error)
        else:
            if after.batch.status is not held.batch.status:
                log.info("submission moved", submission=held.id, status=after.batch.status)

    async def _put_off(self, held: Submission, error: Exception) -> None:
        words = getattr(error, "message", None) or str(error)
        asked = error.retry_after_seconds if isinstance(error, ProviderError) else None
        wait = rules.trouble_wait(held.failures + 1, asked_seconds=asked, rand=self._rand())
        log.warning("submission waits", submission=held.id, error=words, seconds=round(wait))
        now = self._clock()
        await self._store.write(
            submitting.put_off, held, trouble=words, next_at=now + wait, mint=self._mint, now=now
        )

    async def _advance_holding(self, held: Submission) -> None:
        """One step, and a longer lease meanwhile; raises LeaseLost when that fails."""
        step = asyncio.create_task(self._advance(held))
        try:
            while not (await asyncio.wait({step}, timeout=HOLD_SECONDS))[0]:
                await self._store.write(
                    submitting.hold, held, now=self._clock(), lease_seconds=LEASE_SECONDS
                )
            step.result()
        finally:
            step.cancel()
            await asyncio.gather(step, return_exceptions=True)

    async def _advance(self, held: Submission) -> None:
        async with scratch_folder(self._scratch) as folder:
            found = await self._review(held)
            while part := next((part for part in found.parts if part.unlooked), None):
                await self._look_through(found, part, folder)
                # What is tried again of this part leaves less to spend on the next one.
                found = await self._review(held)
            if found.cancelled_at is not None:
                await self._cancel(found)
            else:
                found = await self._splitting.split_large(found, folder)
                await self._hand_in(found, folder)

    async def _review(self, held: Submission) -> Submission:
        return await self._store.write(
            submitting.review, held, rand=self._rand(), mint=self._mint, now=self._clock()
        )

    async def _look_through(self, held: Submission, part: Part, folder: Path) -> None:
        """Have requests tried again whose answers may be better another time."""
        again = await self._gather(held, part, folder) if held.may_retry(part) else None
        now = self._clock()
        await self._store.write(submitting.look_through, held, part, again, now=now)

    async def _gather(self, held: Submission, part: Part, folder: Path) -> NewPart | None:
        project_id = held.batch.project_id
        requests, answers, target = (folder / f"{part.id}.{n}" for n in ("in", "out", "again"))
        assert part.results is not None
        await fetch(self._shelf, new_name(project_id, part.id), requests)
        await fetch(self._shelf, part.results.name, answers)
        gathered = await heavy(
            project_id, gather_passing, requests, answers, target, runs=part.runs
        )
        if not gathered.lines:
            return None
        tokens = part.tokens * gathered.size // part.size
        told = {"submission": held.id, "lines": gathered.lines, "tokens": tokens}
        if not held.may_spend(tokens):
            log.warning("requests not tried again: retry_max_tokens", **told)
            return None
        id = self._mint("prt")
        await self._shelf.put(new_name(project_id, id), target)
        log.info("requests tried again", part=id, **told)
        return NewPart(id, gathered.lines, gathered.size, tokens, gathered.numbering.runs)

    async def _hand_in(self, held: Submission, folder: Path) -> None:
        """In the order of the input, until there is no room."""
        provider: Provider | None = None
        for part in held.parts:
            meant = part.state is PartState.WAITING and part.due_at <= self._clock()
            if meant or part.state is PartState.SUBMITTING:
                provider = provider or self._provider(held)
                if not await self._handing_in.hand_in(provider, held, part, folder):
                    return

    async def _cancel(self, held: Submission) -> None:
        """What was never handed in needs no provider to be given up.

        One part that may have been handed in holds up none of the others.
        """
        failed: ProviderError | ResultsError | None = None
        for part in held.parts:
            if part.state is PartState.WAITING:
                await self._store.write(submitting.reject, held, part, trouble=None)
            elif part.state is PartState.SUBMITTING:
                try:
                    await self._withdraw(held, part)
                except (ProviderError, ResultsError) as error:
                    failed = failed or error
            elif part.state is PartState.RUNNING and part.batch is not None:
                await self._cancel_batch(held, part.batch.id, part.batch.status)
        if failed is not None:
            raise failed

    async def _withdraw(self, held: Submission, part: Part) -> None:
        """A part of which nothing was asked needs no provider to be given up."""
        if part.asked_at is None:
            await self._store.write(submitting.reject, held, part, trouble=None)
            return
        if await self._handing_in.withdraw(self._provider(held), held, part):
            return
        found = await self._review(held)
        for one in found.parts:
            if one.id == part.id and one.batch is not None:
                await self._cancel_batch(held, one.batch.id, one.batch.status)

    async def _cancel_batch(self, held: Submission, batch_id: str, status: Status) -> None:
        """Ask the provider; a batch that has just ended cannot be cancelled any more."""
        if status.ended or status is Status.CANCELLING:
            return
        try:
            await self._provider(held).cancel(batch_id)
        except ProviderError as error:
            log.warning("not cancelled", submission=held.id, batch=batch_id, error=error.message)

    def _provider(self, held: Submission) -> Provider:
        provider = self._provider_of(held.batch.account_id)
        if provider is None:
            raise ResultsUnavailable(f"The account {held.batch.account!r} cannot be called now.")
        return provider
