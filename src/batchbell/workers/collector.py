"""The collector: merges the results of ended batches, and puts them on the shelf."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from batchbell import failpoints
from batchbell.core import payload
from batchbell.core import results as rules
from batchbell.core.deletion import Deletes
from batchbell.core.errors import (
    LeaseLost,
    ProviderError,
    ProviderNotFound,
    ProviderRejected,
    ResultsError,
    ResultsUnavailable,
)
from batchbell.core.model import Batch, Mint, Snapshot
from batchbell.core.results import Collecting, Results, Tally
from batchbell.core.travelling import ResultsState
from batchbell.files.formats import files_of
from batchbell.files.merging import merge
from batchbell.files.scratch import scratch_folder
from batchbell.files.shelf import Shelf
from batchbell.observability import Metrics
from batchbell.providers.protocol import Provider
from batchbell.storage import keeping, results, submissions
from batchbell.storage.engine import RESULTS, Store
from batchbell.workers.joining import discard_requests, write_joined

log = structlog.get_logger("batchbell.collector")

LEASE_SECONDS = 120.0
HOLD_SECONDS = LEASE_SECONDS / 4
LOOK_SECONDS = 5.0
AT_ONCE = 2
"""Merges under way: they share the processor with everything else."""
FLUSH_BYTES = 2**20
FORGET_STEP = 50


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A provider's files, on this machine's disk."""

    input: Path | None
    answers: list[Path]


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
        self._under_way: set[asyncio.Task[None]] = set()

    async def step(self) -> bool:
        """Take results that are due, unless enough are being merged already."""
        if self.under_way >= AT_ONCE:
            return False
        held = await self._store.write(
            results.claim_due,
            now=self._clock(),
            lease_seconds=LEASE_SECONDS,
            token=self._mint("lease"),
        )
        if held is None:
            return await self._forget_old()
        task = asyncio.create_task(self._collect(held))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return True

    async def _forget_old(self) -> bool:
        """Delete what was kept for its time: the file first, so that none is left without a row."""
        before = self._clock() - self._keep_seconds
        old = await self._store.read(results.old, before=before, limit=FORGET_STEP)
        for one in old:
            await self._delete_files(one)
            await self._discard_requests(one.batch_key)
        if old:
            await self._store.write(results.forget, [one.id for one in old])
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
        self._under_way.discard(task)
        self.signal.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._metrics.worker_failures.labels(self.name).inc()
            log.error("merge failed; its lease will run out", error=repr(error), exc_info=error)

    async def idle_seconds(self) -> float:
        if self.under_way >= AT_ONCE:
            return LOOK_SECONDS  # the signal is set as soon as one of them has ended
        due = await self._store.read(results.next_due)
        wait = LOOK_SECONDS if due is None else due - self._clock()
        return min(max(wait, 0.05), LOOK_SECONDS)

    async def close(self) -> None:
        """What is being merged is begun again by whoever comes next: nothing is half written."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _collect(self, held: Collecting) -> None:
        try:
            async with scratch_folder(self._scratch) as folder:
                tally, inline = await self._merge_holding(held, folder)
                failpoints.reach(failpoints.BEFORE_KEEP)
                await self._store.write(
                    keeping.keep,
                    held,
                    tally,
                    inline=inline,
                    deletes=self._deletes,
                    mint=self._mint,
                    now=self._clock(),
                )
        except LeaseLost:
            log.warning("merge given up", results_id=held.results.id)
            await self._clear_away(held)
        except (ProviderError, ResultsError, OSError) as error:
            await self._put_off(held, error)
        else:
            log.info(
                "results kept",
                batch=held.batch.id,
                lines=tally.lines,
                bytes=tally.size,
                notes=list(tally.notes) or None,
            )
            await self._discard_requests(held.batch.key)

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
        words = getattr(error, "message", None) or str(error)
        log.warning("results not merged", batch=held.batch.id, error=words, next_at=next_at)
        await self._store.write(results.put_off, held, trouble=words, next_at=next_at, now=now)

    async def _merge_holding(self, held: Collecting, folder: Path) -> tuple[Tally, str | None]:
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

    async def _merge(self, held: Collecting, folder: Path) -> tuple[Tally, str | None]:
        merged = folder / "merged"
        tally = _reconciled(held.batch, await self._write(held.batch, merged))
        inline = await asyncio.to_thread(_inline, merged, tally, self._inline_max_bytes)
        failpoints.reach(failpoints.BEFORE_SHELF)
        await self._shelf.put(held.results.name, merged)
        return tally, inline

    async def _write(self, batch: Batch, target: Path) -> Tally:
        """The lines of a batch, or of all parts of a submission."""
        whole = await self._store.read(submissions.of_batch, batch.key)
        if whole is not None:
            return await write_joined(whole, self._shelf, target)
        provider = self._provider_of(batch.account_id)
        if provider is None:
            raise ResultsUnavailable(f"The account {batch.account!r} cannot be called now.")
        files = await _download(provider, batch, target.parent)
        return await asyncio.to_thread(_write, files, batch, target)

    async def _discard_requests(self, batch_key: int) -> None:
        """What a submission asked for is not needed once its answers are kept, or given up."""
        whole = await self._store.read(submissions.of_batch, batch_key)
        if whole is not None:
            with contextlib.suppress(ResultsError):
                await discard_requests(whole, self._shelf)


async def _download(provider: Provider, batch: Batch, folder: Path) -> Downloaded:
    seen = batch.snapshot or Snapshot(id=batch.id, provider_status="", status=None)
    answers = []
    for name, file_id in (("output", seen.output_file_id), ("error", seen.error_file_id)):
        if file_id is not None:
            answers.append(folder / name)
            await _fetch(provider, file_id, answers[-1])
    return Downloaded(await _fetch_input(provider, seen.input_file_id, folder / "input"), answers)


async def _fetch_input(provider: Provider, file_id: str | None, target: Path) -> Path | None:
    """None where it is gone: it is worth an order, and no failure."""
    if file_id is None:
        return None
    try:
        await _fetch(provider, file_id, target)
    except (ProviderNotFound, ProviderRejected):
        return None
    return target


async def _fetch(provider: Provider, file_id: str, target: Path) -> None:
    file = await asyncio.to_thread(target.open, "wb")
    try:
        waiting: list[bytes] = []
        size = 0
        async for chunk in provider.results(file_id):
            waiting.append(chunk)
            size += len(chunk)
            if size >= FLUSH_BYTES:
                await asyncio.to_thread(file.writelines, waiting)
                waiting, size = [], 0
        await asyncio.to_thread(file.writelines, waiting)
    finally:
        await asyncio.to_thread(file.close)


def _write(files: Downloaded, batch: Batch, target: Path) -> Tally:
    code, message = rules.missing_answer(batch)
    with target.open("wb", FLUSH_BYTES) as file:
        return merge(files.input, files.answers, file, missing_code=code, missing_message=message)


def _reconciled(batch: Batch, tally: Tally) -> Tally:
    wrong = rules.mismatch(batch, tally)
    return replace(tally, notes=(*tally.notes, wrong)) if wrong else tally


def _inline(merged: Path, tally: Tally, most: int) -> str | None:
    """The lines as one JSON array, for those who want them in their webhook; None for too much."""
    if tally.size > most:
        return None
    lines = [line for line in merged.read_bytes().decode("utf-8", "replace").split("\n") if line]
    try:
        return f"[{','.join(map(payload.portable_json, lines))}]"
    except (ValueError, RecursionError):
        return None
