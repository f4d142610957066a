"""The seeker: looks for batches that calls through the gateway may have made unseen.

A call whose answer was lost has left its intent. The batch is looked for at the provider, adopted
with whoever asked to hear of it, or known not to be there: see `core.twins`.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
from msgspec.structs import replace

from batchbell.core import twins
from batchbell.core.errors import InvalidRequest, ProviderError
from batchbell.core.model import Mint, Snapshot
from batchbell.observability import Metrics
from batchbell.providers.protocol import Provider
from batchbell.storage import creations, sweeps
from batchbell.storage.creations import Creation
from batchbell.storage.engine import CREATIONS, Store
from batchbell.storage.sweeps import Find
from batchbell.workers.jobs import Jobs, Shares, holding
from batchbell.workers.loop import rest_seconds

log = structlog.get_logger("batchbell.gateway")

LEASE_SECONDS = 120.0
FIRST_PAUSE_SECONDS = 1.0
LAST_PAUSE_SECONDS = 30.0
"""Between two looks for one batch."""
SHARES = Shares(most=8, of_account=1, of_project=8)
"""A provider that does not answer holds up its own account's alone."""
FORGET_STEP = 200


class Seeker:
    """See the module. `provider_of` gives the way to an account's provider, by the account's id."""

    name = "seeker"

    def __init__(
        self,
        store: Store,
        provider_of: Callable[[str], Provider | None],
        *,
        clock: Callable[[], float],
        mint: Mint,
        metrics: Metrics,
    ) -> None:
        self.signal = store.signal(CREATIONS)
        self._store = store
        self._provider_of = provider_of
        self._clock = clock
        self._mint = mint
        self._jobs = Jobs(self.name, SHARES, signal=self.signal, metrics=metrics)

    async def step(self) -> bool:
        """Look after one call, unless enough are looked after already."""
        if self._jobs.full:
            return False
        now = self._clock()
        busy = self._jobs.of_accounts()
        held = await self._store.write(
            creations.claim_due, busy=busy, now=now, lease_seconds=LEASE_SECONDS
        )
        if held is None:
            before = now - creations.REMEMBERED_SECONDS
            forgotten = await self._store.write(
                creations.forget_old, before=before, limit=FORGET_STEP
            )
            return forgotten > 0
        self._jobs.begin(self._look_after(held), account_id=held.account_id)
        return True

    async def ended(self) -> None:
        """Wait until nothing is under way."""
        await self._jobs.ended()

    async def idle_seconds(self) -> float:
        due = None if self._jobs.under_way else await self._store.read(creations.next_due)
        return rest_seconds(due, now=self._clock())

    async def close(self) -> None:
        """What is under way is gone on with by whoever comes next."""
        await self._jobs.close()

    async def _look_after(self, held: Creation) -> None:
        provider = self._provider_of(held.account_id)
        seen: Snapshot | None = None
        whole = unlisted = False
        if provider is not None:
            try:
                seen, whole = await holding(
                    self._find(provider, held),
                    lambda: self._hold(held),
                    lease_seconds=LEASE_SECONDS,
                )
            except ProviderError as error:
                unlisted = error.status in twins.WITHOUT_LIST
                log.warning("no look at the list", account=held.account_id, error=error.message)
        if seen is not None:
            await self._adopt(held, seen)
        elif self._is_over(held, looks=held.looks + whole, unlisted=unlisted):
            await self._end(held, unlisted=unlisted)
        else:
            await self._wait(held, whole=whole, unlisted=unlisted)

    async def _hold(self, held: Creation) -> None:
        now = self._clock()
        await self._store.write(creations.hold, held, now=now, lease_seconds=LEASE_SECONDS)

    async def _find(self, provider: Provider, held: Creation) -> tuple[Snapshot | None, bool]:
        found, whole = await provider.find(held.marks)
        taken = await self._store.read(creations.taken, held, [one.id for one in found])
        return next((one for one in found if one.id not in taken), None), whole

    def _is_over(self, held: Creation, *, looks: int, unlisted: bool) -> bool:
        now = self._clock()
        if not unlisted:
            return twins.may_ask_again(looks=looks, not_before=held.ask_again_at, now=now)
        asked_at, not_before = held.marks.asked_at, held.ask_again_at
        again = twins.may_ask_unseen(asked_at=asked_at, not_before=not_before, now=now)
        return again is not None

    async def _adopt(self, held: Creation, seen: Snapshot) -> None:
        registrations = [replace(one, batch_id=seen.id) for one in held.registrations]
        now = self._clock()
        try:
            await self._store.write(
                sweeps.adopt_one,
                held.project_id,
                held.account_id,
                Find(snapshot=seen, registrations=registrations),
                mint=self._mint,
                now=now,
            )
        except InvalidRequest as error:
            log.warning("a batch was found, and cannot be kept", batch=seen.id, error=error.message)
        await self._store.write(creations.end, held, batch_id=seen.id, now=now)
        log.info("a batch whose answer was lost is found", batch=seen.id, account=held.account_id)

    async def _end(self, held: Creation, *, unlisted: bool) -> None:
        if unlisted:
            log.error(
                "a batch may have been made, and the provider has no list to look for it",
                account=held.account_id,
                input_file=held.marks.input_file_id,
                advice="ask the provider; if it is there, watch it: batchbell watch",
            )
        await self._store.write(creations.end, held, batch_id=None, now=self._clock())

    async def _wait(self, held: Creation, *, whole: bool, unlisted: bool) -> None:
        now = self._clock()
        pause = (now - held.marks.asked_at) / 4
        due_at = now + min(max(pause, FIRST_PAUSE_SECONDS), LAST_PAUSE_SECONDS)
        await self._store.write(
            creations.looked, held, whole=whole, unlisted=unlisted, due_at=due_at
        )
