"""The collector: merges the results of ended batches, and puts them on the shelf."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from batchbell import failpoints
from batchbell.core import payload
from batchbell.core import results as rules
from batchbell.core.deletion import Deletes
from batchbell.core.errors import (
    LeaseLost,
    PartsAwaited,
    ProviderError,
    ResultsError,
    ResultsUnavailable,
    StoreUnavailable,
)
from batchbell.core.model import Batch, Mint, Snapshot
from batchbell.core.results import Collecting, Results, Tally
from batchbell.core.travelling import ResultsState
from batchbell.core.turns import Waiting, with_room
from batchbell.files.formats import files_of
from batchbell.files.scratch import scratch_folder
from batchbell.files.shelf import Shelf
from batchbell.observability import Metrics
from batchbell.providers.protocol import Provider
from batchbell.storage import keeping, results, submissions
from batchbell.storage.engine import RESULTS, Store
from batchbell.threads import heavy
from batchbell.workers.fetching import Fetching, reconciled
from batchbell.workers.joining import discard_requests, have_parts_fetched, write_joined

log = structlog.get_logger("batchbell.collector")

LEASE_SECONDS = 120.0
HOLD_SECONDS = LEASE_SECONDS / 4
LOOK_SECONDS = 5.0
AT_ONCE = 64
"""Merges under way: most of them wait for a provider."""
OF_PROJECT = 8
OF_ACCOUNT = 4
"""A provider that sends slowly holds up its own account only."""
FORGET_STEP = 50
PARTS_SECONDS = 300.0
"""How soon it is tried again to join parts that are being fetched; their end is heard at once."""


@dataclass(frozen=True, slots=True)
class Merged:
    """Lines that are on the shelf."""

    tally: Tally
    inline: str | None
    seen: Snapshot | None
    """The batch as its provider describes it now, where that was asked for."""


class Collector:
    """See the module. `provider_of` gives the way to an account's provider, by the account's id."""

    name = "collector"

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
        inline_max_bytes: int,
        retention_days: float,
        deletes: Deletes = Deletes.NONE,
        file_max_bytes: int = 20_000_000_000,
    ) -> None:
        self.signal = store.signal(RESULTS)
        self._store = store
        self._shelf = shelf
        self._provider_of = provider_of
        self._clock = clock
        self._mint = mint
        self._rand = rand
        self._metrics = metrics
        self._scratch = scratch
        self._inline_max_bytes = inline_max_bytes
        self._keep_seconds = retention_days * 86_400.0
        self._deletes = deletes
        self._file_max_bytes = file_max_bytes
        self._under_way: dict[asyncio.Task[None], Batch] = {}

    async def step(self) -> bool:
        """Take results that are due, of whoever has the fewest under way."""
        if self.under_way >= AT_ONCE:
            return False
        now = self._clock()
        for one in self._with_room(await self._store.read(results.waiting, now=now)):
            if one.due_at is None or one.due_at > now:
                continue
            held = await self._store.write(
                results.claim_due,
                one.account_id,
                now=now,
                lease_seconds=LEASE_SECONDS,
                token=self._mint("lease"),
            )
            if held is not None:
                task = asyncio.create_task(self._collect(held))
                self._under_way[task] = held.batch
                task.add_done_callback(self._ended)
                return True
        return await self._forget_old()

    def _with_room(self, waiting: list[Waiting]) -> list[Waiting]:
        batches = self._under_way.values()
        return with_room(
            waiting,
            of_account=Counter(batch.account_id for batch in batches),
            of_project=Counter(batch.project_id for batch in batches),
            most_of_account=OF_ACCOUNT,
            most_of_project=OF_PROJECT,
        )

    async def _forget_old(self) -> bool:
        """Delete what was kept for its time: the file first, so that none is left without a row."""
        before = self._clock() - self._keep_seconds
        old = await self._store.read(results.old, before=before, limit=FORGET_STEP)
        for one in old:
            await self._delete_files(one)
            newest = await self._store.read(results.of_key, one.batch_key)
            if newest is None or newest.id == one.id:
                await self._discard_requests(one.batch_key, every=True)
        if old:
            await self._store.write(results.forget, [one.id for one in old], before=before)
            log.info("results forgotten", number=len(old))
        return bool(old)

    @property
    def under_way(self) -> int:
        """Merges that are being made."""
        return len(self._under_way)

    async def ended(self) -> None:
        """Wait until nothing is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self.signal.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._metrics.worker_failures.labels(self.name).inc()
            log.error("merge failed; its lease will run out", error=repr(error), exc_info=error)

    async def idle_seconds(self) -> float:
        if self.under_way >= AT_ONCE:
            return LOOK_SECONDS  # the signal is set as soon as one of them has ended
        now = self._clock()
        able = self._with_room(await self._store.read(results.waiting, now=now))
        waits = [one.due_at - now for one in able if one.due_at is not None]
        return min(max(min(waits, default=LOOK_SECONDS), 0.05), LOOK_SECONDS)

    async def close(self) -> None:
        """What is being merged is begun again by whoever comes next: nothing is half written."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _collect(self, held: Collecting) -> None:
        """Whatever goes wrong is a try that failed: put off, and given up in the end."""
        try:
            merged = await self._merge_in_scratch(held)
        except LeaseLost:
            log.warning("merge given up", results_id=held.results.id)
            await self._clear_away(held)
        except (ProviderError, ResultsError, OSError) as error:
            await self._put_off(held, error)
        except StoreUnavailable:
            raise  # nothing can be written: the lease runs out
        except Exception as error:
            self._metrics.worker_failures.labels(self.name).inc()
            log.exception("merge failed", results_id=held.results.id)
            await self._put_off(held, error)
        else:
            log.info(
                "results kept",
                batch=held.batch.id,
                lines=merged.tally.lines,
                bytes=merged.tally.size,
                notes=list(merged.tally.notes) or None,
            )
            await self._discard_requests(held.batch.key)

    async def _merge_in_scratch(self, held: Collecting) -> Merged:
        if held.results.tries > rules.TRIES_MAX:
            raise ResultsUnavailable(
                f"Batchbell ended before it could say what became of try {held.results.tries - 1}."
            )
        async with scratch_folder(self._scratch) as folder:
            merged = await self._merge_holding(held, folder)
            failpoints.reach(failpoints.BEFORE_KEEP)
            await self._store.write(
                keeping.keep,
                held,
                merged.tally,
                inline=merged.inline,
                seen=merged.seen,
                deletes=self._deletes,
                mint=self._mint,
                now=self._clock(),
            )
        return merged

    async def _clear_away(self, held: Collecting) -> None:
        """What was written for results that were expunged meanwhile must not stay."""
        found = await self._store.read(results.by_id, held.results.id)
        if found is None or found.state is ResultsState.FAILED:
            await self._delete_files(held.results)

    async def _delete_files(self, found: Results) -> None:
        """The lines, and the tables that were made of them."""
        await asyncio.gather(*(self._shelf.delete(name) for name in files_of(found)))

    async def _put_off(self, held: Collecting, error: Exception) -> None:
        now = self._clock()
        next_at = rules.next_try(error, tries=held.results.tries, now=now, rand=self._rand())
        counted = not isinstance(error, PartsAwaited)
        if not counted:
            next_at = now + PARTS_SECONDS
        words = _reason(error)
        log.warning("results not merged", batch=held.batch.id, error=words, next_at=next_at)
        with contextlib.suppress(LeaseLost):
            if next_at is None:
                await self._store.write(keeping.give_up, held, reason=words, now=now)
            else:
                await self._store.write(
                    results.put_off, held, trouble=words, next_at=next_at, counted=counted, now=now
                )

    async def _merge_holding(self, held: Collecting, folder: Path) -> Merged:
        """Merge, and lengthen the lease meanwhile; raises LeaseLost when that fails."""
        merging = asyncio.create_task(self._merge(held, folder))
        try:
            while not (await asyncio.wait({merging}, timeout=HOLD_SECONDS))[0]:
                await self._store.write(
                    results.hold, held, now=self._clock(), lease_seconds=LEASE_SECONDS
                )
            return merging.result()
        finally:
            merging.cancel()
            await asyncio.gather(merging, return_exceptions=True)

    async def _merge(self, held: Collecting, folder: Path) -> Merged:
        target = folder / "merged"
        tally, seen = await self._write(held, target)
        most = self._inline_max_bytes
        inline = await heavy(held.batch.project_id, _inline, target, tally, most)
        failpoints.reach(failpoints.BEFORE_SHELF)
        await self._shelf.put(held.results.name, target)
        return Merged(tally, inline, seen)

    async def _write(self, held: Collecting, target: Path) -> tuple[Tally, Snapshot | None]:
        """The lines of a batch, or of all parts of a submission."""
        batch = held.batch
        whole = await self._store.read(submissions.of_batch, batch.key)
        if whole is not None:
            await have_parts_fetched(
                whole,
                self._store,
                self._shelf,
                asked_at=held.results.asked_at,
                mint=self._mint,
                now=self._clock(),
            )
            return reconciled(batch, await write_joined(whole, self._shelf, target)), None
        provider = self._provider_of(batch.account_id)
        if provider is None:
            raise ResultsUnavailable(f"The account {batch.account!r} cannot be called now.")
        most = rules.file_max_bytes(batch, self._file_max_bytes)
        fetching = Fetching(provider, batch, target.parent, tries=held.results.tries, most=most)
        return await fetching.merge(target)

    async def _discard_requests(self, batch_key: int, *, every: bool = False) -> None:
        """What a submission asked for is hardly needed once its answers are joined."""
        whole = await self._store.read(submissions.of_batch, batch_key)
        if whole is not None and whole.batch.status.ended:
            with contextlib.suppress(ResultsError):
                await discard_requests(whole, self._shelf, every=every)


def _reason(error: Exception) -> str:
    """What went wrong, for whoever asks for the results."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full: make room in the folder of the results."
    known = isinstance(error, (ProviderError, ResultsError, OSError))
    words = str(getattr(error, "message", None) or error)
    return words if known else f"Batchbell itself failed to merge them: {type(error).__name__}."


def _inline(merged: Path, tally: Tally, most: int) -> str | None:
    """The lines as one JSON array, for those who want them in their webhook; None for too much."""
    if tally.size > most:
        return None
    lines = [line for line in merged.read_bytes().decode("utf-8", "replace").split("\n") if line]
    try:
        return f"[{','.join(map(payload.portable_json, lines))}]"
    except (ValueError, RecursionError):
        return None
