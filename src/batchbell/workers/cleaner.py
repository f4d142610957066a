"""The cleaner: deletes files at the provider whose content is kept here, and nothing in doubt.

It runs only where deleting is wished for: what is due waits while it is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from batchbell import failpoints
from batchbell.core import deletion as rules
from batchbell.core.deletion import Deleting, DeletionState, ProviderFile
from batchbell.core.errors import (
    LeaseLost,
    ProviderError,
    ResultsError,
    ResultsGone,
    ResultsUnavailable,
)
from batchbell.core.model import Mint
from batchbell.core.results import Results
from batchbell.files.results_store import ResultsStore
from batchbell.observability import Metrics
from batchbell.providers.protocol import Provider
from batchbell.storage import deletions
from batchbell.storage.engine import RESULTS, Store
from batchbell.workers.loop import rest_seconds

log = structlog.get_logger("batchbell.cleaner")

STEP_SECONDS = 10.0
"""How long one step begins calls; what is left is gone on with by the next one."""
LEASE_SECONDS = 120.0
"""More than a step and its last call together."""
NO_COPY = "The merged results are missing from the results store, or differ from what was written."


@dataclass(slots=True)
class Progress:
    """How far a deletion has come."""

    left: list[ProviderFile]
    stays: list[ProviderFile] = field(default_factory=list)
    """Inputs that others need."""
    reason: str | None = None
    """Why they stay."""

    @property
    def there(self) -> list[ProviderFile]:
        return self.left + self.stays


class Cleaner:
    """See the module. `provider_of` gives the way to an account's provider, by the account's id."""

    name = "cleaner"

    def __init__(
        self,
        store: Store,
        results_store: ResultsStore,
        provider_of: Callable[[str], Provider | None],
        *,
        clock: Callable[[], float],
        mint: Mint,
        rand: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self.signal = store.signal(RESULTS)
        self._store = store
        self._results_store = results_store
        self._provider_of = provider_of
        self._clock = clock
        self._mint = mint
        self._rand = rand
        self._metrics = metrics

    async def step(self) -> bool:
        """Go on with the deletion that has been due for longest."""
        held = await self._store.write(
            deletions.claim_due,
            now=self._clock(),
            lease_seconds=LEASE_SECONDS,
            token=self._mint("lease"),
        )
        if held is None:
            return False
        try:
            await self._go_on(held)
        except LeaseLost:
            log.warning("deletion given up: another worker's", batch=held.batch_id)
        return True

    async def idle_seconds(self) -> float:
        return rest_seconds(await self._store.read(deletions.next_due), now=self._clock())

    async def close(self) -> None:
        """Nothing is ever under way between steps."""

    async def _go_on(self, held: Deleting) -> None:
        done = Progress(list(held.files))
        try:
            await self._check_copy(held.results)
            await self._delete(held, done)
        except ResultsGone:
            await self._end(held, DeletionState.KEPT, done.there, reason=NO_COPY)
        except (ProviderError, ResultsError) as error:
            await self._put_off(held, done.there, error)
        else:
            if done.left:
                await self._store.write(deletions.go_on, held, done.there, now=self._clock())
            else:
                await self._end(held, DeletionState.DELETED, done.stays, reason=done.reason)

    async def _check_copy(self, found: Results) -> None:
        """That what was kept is there, whole. Raises ResultsError."""
        size = await self._results_store.size(found.name)
        if found.tally is None or size != found.tally.size:
            raise ResultsGone(NO_COPY)

    async def _delete(self, held: Deleting, done: Progress) -> None:
        """Go on as far as the time goes. Raises ProviderError and ResultsUnavailable."""
        provider = self._provider_of(held.account_id)
        if provider is None:
            raise ResultsUnavailable("The account cannot be called now.")
        until = self._clock() + STEP_SECONDS
        while done.left and self._clock() <= until:
            file = done.left[0]
            user = await self._user_of(held, file)
            if user is None:
                failpoints.reach(failpoints.BEFORE_DELETE)
                await provider.delete(file.id)
                failpoints.reach(failpoints.AFTER_DELETE)
            else:
                done.stays.append(file)
                done.reason = f"The input file was left: batch {user} needed it."
            del done.left[0]

    async def _user_of(self, held: Deleting, file: ProviderFile) -> str | None:
        """The batch that needs the file. Raises ResultsUnavailable where that is not known yet."""
        if not file.is_input:
            return None
        if await self._store.read(deletions.any_unseen, held):
            raise ResultsUnavailable("Some batch that may use the input was not seen yet.")
        return await self._store.read(deletions.user_of, held.account_id, file.id)

    async def _put_off(
        self, held: Deleting, left: list[ProviderFile], error: ProviderError | ResultsError
    ) -> None:
        """Trouble of the account keeps its other deletions waiting, too."""
        now = self._clock()
        words = getattr(error, "message", None) or str(error)
        next_at = rules.next_try(error, tries=held.tries, now=now, rand=self._rand())
        if next_at is None:
            await self._end(held, DeletionState.FAILED, left, reason=words)
            return
        others_at = None
        if isinstance(error, ProviderError):
            others_at = now + max(rules.FIRST_WAIT_SECONDS, rules.asked_seconds(error))
        await self._store.write(
            deletions.put_off, held, left, reason=words, next_at=next_at, others_at=others_at
        )
        self._metrics.deletions.labels("retry").inc()
        log.warning("files not deleted", batch=held.batch_id, error=words, next_at=next_at)

    async def _end(
        self,
        held: Deleting,
        state: DeletionState,
        left: list[ProviderFile],
        *,
        reason: str | None,
    ) -> None:
        await self._store.write(deletions.end, held, state, left, reason=reason, now=self._clock())
        self._metrics.deletions.labels(state.value).inc()
        if state is DeletionState.DELETED:
            log.info("files deleted", batch=held.batch_id, left=len(left) or None, reason=reason)
        else:
            log.warning("files left", batch=held.batch_id, left=len(left), reason=reason)
