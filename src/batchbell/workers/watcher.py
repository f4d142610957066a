"""The watcher of one account: sweeps its open batches and writes what changed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import structlog
from msgspec.structs import asdict

from batchbell import failpoints
from batchbell.core import backoff, notices, polling
from batchbell.core.account import Arrivals
from batchbell.core.errors import LeaseLost, ProviderError, ProviderRateLimited
from batchbell.core.model import Account, Mint, Snapshot
from batchbell.core.polling import Pace
from batchbell.net.guard import AddressRules
from batchbell.observability import Metrics
from batchbell.providers.protocol import Provider
from batchbell.storage import accounts, batches, hints, sweeps
from batchbell.storage.batches import Change
from batchbell.storage.engine import ACCOUNTS, Store
from batchbell.storage.sweeps import Find
from batchbell.workers.discovery import Discovery, find_of
from batchbell.workers.findings import Findings
from batchbell.workers.loop import rest_seconds
from batchbell.workers.sweep import Calls, Found, Memory, Plan, Sweep

log = structlog.get_logger("batchbell.watcher")

LEASE_SECONDS = 60.0
"""More than a third of itself and the longest call together: a sweep that goes on keeps it."""
DAY_SECONDS = 86_400.0
UNKNOWN_WORDS_MAX = 10_000
"""So many are remembered, and logged, by one process."""


@dataclass(frozen=True, slots=True)
class _Run:
    """What came of a sweep."""

    calls: Calls
    moved: int
    """How many batches it has moved."""
    error: ProviderError | None
    """Why it ended before its end."""


class Watcher:
    """See the module. One for each account, so that a slow provider delays no other."""

    def __init__(
        self,
        store: Store,
        provider: Provider,
        account_id: str,
        *,
        pace: Pace,
        clock: Callable[[], float],
        mint: Mint,
        rand: Callable[[], float],
        metrics: Metrics,
        rules: Callable[[], AddressRules] = AddressRules,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        release: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.name = "watcher"
        self.signal = store.signal(ACCOUNTS)
        self._store = store
        self.provider = provider
        hooks = provider.profile.hooks
        self._announces = frozenset(hooks.events.values()) if hooks else frozenset()
        self._account_id = account_id
        self.pace = pace
        self._clock = clock
        self._mint = mint
        self._rand = rand
        self._metrics = metrics
        self._rules = rules
        self._sleep = sleep
        self._release = release
        self._held_at = 0.0
        self.progress_at = 0.0
        """When the provider last answered: a sweep of very many calls takes long, and lives."""
        self._failing_since: float | None = None
        self._unfinished: Sweep | None = None
        """One that a rate limit ended goes on where it was: else its tail might never be seen."""
        self._sweeps = 0
        self._memory = Memory()
        self._list_failures = 0
        self._list_due_at = 0.0
        self._unknown_words: set[tuple[str, str]] = set()

    async def step(self) -> bool:
        """Sweep the account if it is due and nobody else does."""
        now = self._clock()
        account = await self._store.write(
            accounts.claim_due,
            ids=[self._account_id],
            now=now,
            lease_seconds=LEASE_SECONDS,
            token=self._mint("lease"),
        )
        if account is None:
            return False
        try:
            if accounts.is_whole(account, now):
                await self._sweep(account)
            else:
                await self._follow_hints(account)
        except LeaseLost:
            log.warning("sweep given up: another worker holds the lease", account=account.label)
        return True

    async def idle_seconds(self) -> float:
        due = await self._store.read(accounts.next_due, [self._account_id])
        return rest_seconds(due, now=self._clock())

    async def close(self) -> None:
        """A sweep that ran has ended with its step; let go of the provider."""
        self._store.forget(self.signal)
        if self._release is not None:
            await self._release()

    async def _sweep(self, account: Account) -> bool:
        """Look at all batches; whether it went well."""
        started = self._held_at = self._clock()
        sweep = self._unfinished
        if sweep is None or sweep.discover_since != account.discover_since:
            sweep = await self._begin(account, now=started)
        self._unfinished = None
        run = await self._run(account, sweep, started)
        if isinstance(run.error, ProviderRateLimited):
            self._unfinished = sweep
        await self._finish(account, sweep, run)
        self._report(account, sweep, run, started=started)
        return run.error is None

    async def _follow_hints(self, account: Account) -> None:
        """Look at the batches that have ended by their provider's own word, and at no others.

        Where they are many, a sweep of all batches costs fewer calls.
        """
        started = self._held_at = self._clock()
        hinted = await self._store.read(hints.due, account.id, now=started)
        known = hinted.known
        pages = polling.pages_expected(
            len(known.open) + known.waiting,
            account.pages,
            page_size=self.provider.profile.page_size,
        )
        if polling.sweeps_all(len(known.open), pages):
            if await self._sweep(account):
                await self._store.write(hints.looked, account.id, hinted.hints, now=started)
            return
        plan = Plan(use_list=False, verbs=account.verbs, reads_max=polling.reads_max(self.pace))
        sweep = Sweep(self.provider, known, plan, memory=self._memory, now=started)
        run = await self._run(account, sweep, started)
        now = self._clock()
        if run.error is not None:
            await self._fail(account, run.error, now=now, pace=polling.for_hints(self.pace))
        else:
            await self._store.write(
                sweeps.end_hinted,
                account=account,
                token=_token(account),
                looked_at=hinted.hints,
                not_before=now + polling.budget_seconds(run.calls.total, self.pace),
                verbs=sweep.verbs,
                now=now,
            )
        self._report(account, sweep, run, started=started)

    async def _run(self, account: Account, sweep: Sweep, started: float) -> _Run:
        """Make the calls of a sweep, and write what each brings while the next is under way.

        Not where batches are discovered: what the next page has that is not known depends on it.
        """
        before, findings = replace(sweep.calls), Findings(partial(self._write, account))
        error: ProviderError | None = None
        try:
            async for found in sweep.found():
                self.progress_at = self._clock()
                await findings.add(found)
                if sweep.discover_since is not None:
                    await findings.end()
                await self._keep_pace(sweep.calls.since(before), started)
        except ProviderError as caught:
            error = caught
        except BaseException:
            await findings.cut_off()
            raise
        await findings.end()
        return _Run(sweep.calls.since(before), findings.moved, error)

    async def _begin(self, account: Account, *, now: float) -> Sweep:
        known = await self._store.read(batches.known, account.id, now=now)
        self._memory.forget_ended(known.open)
        discovery = None
        if account.discover_since is not None:
            discovery = Discovery(account.discover_since, self._known, now=now)
        plan = Plan(
            last_pages=account.pages,
            use_list=account.failures > 0 or not now < self._list_due_at < now + DAY_SECONDS,
            check_list=polling.checks_list(self._sweeps),
            verbs=account.verbs,
            reads_max=polling.reads_max(self.pace),
        )
        self._sweeps += 1
        return Sweep(self.provider, known, plan, memory=self._memory, now=now, discovery=discovery)

    def _note_list(self, sweep: Sweep, *, now: float) -> None:
        """A list that fails is left alone ever longer, while the batches are read one by one."""
        if sweep.list_failed:
            self._list_failures += 1
            if self._list_failures == 1:
                return  # one alone may be chance
            self._list_due_at = now + backoff.exponential(
                self._list_failures,
                base_seconds=self.pace.poll_interval_seconds,
                max_seconds=polling.TROUBLE_MAX_SECONDS,
                rand=self._rand(),
            )
        elif sweep.calls.pages:
            self._list_failures, self._list_due_at = 0, 0.0

    async def _known(self, ids: Sequence[str]) -> set[str]:
        return await self._store.read(batches.known_ids, self._account_id, ids)

    async def _keep_pace(self, calls: Calls, started: float) -> None:
        """Spread a sweep of very many calls over the time that the budget gives them."""
        behind = polling.seconds_ahead(
            calls.total, elapsed_seconds=self._clock() - started, pace=self.pace
        )
        if behind > 0:
            await self._sleep(behind)

    async def _write(self, account: Account, found: Found) -> int:
        """Write what answers brought, and with it keep the lease; nothing new writes nothing.

        Returns how many batches it has moved.
        """
        if not len(found):
            await self._keep_lease(account)
            return 0
        failpoints.reach(failpoints.BEFORE_WRITE)
        finds = [find_of(seen, account.id, self._rules()) for seen in found.unknown]
        changes = await self._store.write(
            sweeps.write_found,
            project_id=account.project_id,
            account_id=account.id,
            token=_token(account),
            lease_seconds=LEASE_SECONDS,
            sightings=found.sightings,
            finds=finds,
            announces=self._announces,
            mint=self._mint,
            now=self._clock(),
        )
        self._log_finds(account, finds)
        self._log_unknown(account, found)
        for status, number in Counter(change.batch.status for change in changes).items():
            self._metrics.changes.labels(status).inc(number)
        if changes:
            log.info("batch moved", account=account.label, each=list(map(_move, changes)))
        return len(changes)

    def _log_finds(self, account: Account, finds: Sequence[Find]) -> None:
        for find in finds:
            facts = {"batch": find.snapshot.id, "account": account.label}
            log.info("batch found", **facts, watched=bool(find.registrations))
            if find.refused is not None:
                log.warning(
                    "batch asks for a webhook that is not called", **facts, why=find.refused
                )
        self._metrics.discovered.inc(len(finds))

    def _log_unknown(self, account: Account, found: Found) -> None:
        """Once for each batch and word that we do not know: it is watched on."""
        for seen in found.sightings:
            if not isinstance(seen, Snapshot) or seen.status is not None:
                continue
            word = (seen.id, seen.provider_status)
            if word in self._unknown_words or len(self._unknown_words) >= UNKNOWN_WORDS_MAX:
                continue
            self._unknown_words.add(word)
            self._metrics.unknown_statuses.labels(account.label).inc()
            log.warning(
                "unknown status", batch=seen.id, account=account.label, status=word[1][:100]
            )

    async def _keep_lease(self, account: Account) -> None:
        """Lengthen the lease of a long sweep once a third of it has passed."""
        if self._clock() < self._held_at + LEASE_SECONDS / 3:
            return
        self._held_at = self._clock()
        await self._store.write(
            accounts.hold,
            account_id=account.id,
            token=_token(account),
            now=self._held_at,
            lease_seconds=LEASE_SECONDS,
        )

    async def _finish(self, account: Account, sweep: Sweep, run: _Run) -> None:
        now, calls, error = self._clock(), run.calls, run.error
        self._note_list(sweep, now=now)
        verbs = account.verbs if error else sweep.verbs
        if verbs != account.verbs:
            log.warning("account's ways to look", account=account.label, **asdict(verbs))
        if error is None:
            self._failing_since = None
            await self._store.write(
                accounts.finish,
                account_id=account.id,
                token=_token(account),
                next_at=polling.next_sweep(
                    now=now,
                    calls=calls.total,
                    pace=self.pace,
                    rand=self._rand(),
                    arrivals=await self._arrivals(account),
                ),
                not_before=now + polling.rest_seconds(calls.total, self.pace),
                pages=sweep.pages_read or None,
                discovered_to=sweep.discovered_to,
                verbs=verbs,
                now=now,
            )
            return
        await self._fail(account, error, now=now, pace=self.pace)

    async def _arrivals(self, account: Account) -> Arrivals:
        """As they are after this sweep."""
        if not self._announces or account.arrivals.last_at is None:
            return account.arrivals
        return await self._store.read(accounts.arrivals_of, account.id)

    async def _fail(
        self, account: Account, error: ProviderError, *, now: float, pace: Pace
    ) -> None:
        failures = notices.failures_after(account, error)
        if self._failing_since is None:
            self._failing_since = account.swept_at if account.failures and account.swept_at else now
        since = self._failing_since
        notice = notices.of_account(
            account, failures=failures, reason=error.message, since=since, now=now
        )
        next_at = polling.after_failure(
            error, failures=failures, now=now, pace=pace, rand=self._rand()
        )
        await self._store.write(
            sweeps.fail,
            account=account,
            token=_token(account),
            next_at=next_at,
            reason=error.message,
            failures=failures,
            notice=notice,
            mint=self._mint,
            now=now,
        )
        if notice is not None:
            log.warning(
                "account.unreachable", account=account.name, since=since, error=error.message
            )

    def _report(self, account: Account, sweep: Sweep, run: _Run, *, started: float) -> None:
        calls, error = run.calls, run.error
        seconds = max(0.0, self._clock() - started)
        result = "ok" if error is None else type(error).__name__
        metrics = self._metrics
        metrics.sweeps.labels(account.label, result).inc()
        metrics.provider_calls.labels(account.label, "list").inc(calls.pages)
        metrics.provider_calls.labels(account.label, "retrieve").inc(calls.retrieves)
        metrics.sweep_duration.observe(seconds)
        log_line = log.warning if error else (log.info if run.moved else log.debug)
        log_line(
            "swept",
            account=account.label,
            open=sweep.open,
            pages=calls.pages,
            retrieves=calls.retrieves,
            moved=run.moved,
            seconds=round(seconds, 3),
            error=error.message if error else None,
        )


def _move(change: Change) -> dict[str, str | None]:
    batch = change.batch
    return {
        "batch": batch.id,
        "before": change.before,
        "status": batch.status,
        "outcome": batch.outcome,
    }


def _token(account: Account) -> str:
    assert account.lease_token is not None
    return account.lease_token
