"""The collector: merges the results of ended batches, and joins those of submissions."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import structlog
from msgspec.structs import replace

from batchbell import failpoints
from batchbell.core import payload, submission
from batchbell.core import results as rules
from batchbell.core.attachment import ResultsState
from batchbell.core.deletion import Deletes
from batchbell.core.errors import (
    ChildDied,
    LeaseLost,
    PartsAwaited,
    ProviderError,
    ProviderUnavailable,
    ResultsError,
    ResultsGone,
    ResultsUnavailable,
    StoreUnavailable,
)
from batchbell.core.model import Batch, BatchKind, Mint, Snapshot
from batchbell.core.results import Collecting, Results, Tally
from batchbell.core.submission import Part, Submission, new_name
from batchbell.files.merge import merge_files
from batchbell.files.provider_files import unpack
from batchbell.files.results_store import ResultsStore
from batchbell.files.rounds import Rounds, join_files
from batchbell.files.scratch import scratch_folder
from batchbell.files.tables import files_of
from batchbell.observability import Metrics
from batchbell.providers.protocol import Provider
from batchbell.storage import merges, results, submissions
from batchbell.storage import parts as kept_parts
from batchbell.storage.engine import RESULTS, Store
from batchbell.threads import apart, heavy
from batchbell.workers.jobs import Jobs, Shares, holding

log = structlog.get_logger("batchbell.collector")

LEASE_SECONDS = 120.0
SHARES = Shares(most=64, of_account=4, of_project=8)
"""Most merges wait for a provider. One that sends slowly holds up its own account only."""
FORGET_STEP = 50
RUSH_SECONDS = 0.5
"""While webhooks are rushed, it looks again after so long."""
PARTS_SECONDS = 300.0
"""How soon it is tried again to join parts that are being fetched; their end is heard at once."""


@dataclass(frozen=True, slots=True)
class Merged:
    """Lines that are in the results store."""

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
        results_store: ResultsStore,
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
        rushed: Callable[[], bool] = lambda: False,
    ) -> None:
        """While webhooks are `rushed`, only results begin that somebody waits for."""
        self.signal = store.signal(RESULTS)
        self._store = store
        self._results_store = results_store
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
        self._rushed = rushed
        self._jobs = Jobs(self.name, SHARES, signal=self.signal, metrics=metrics)

    async def step(self) -> bool:
        """Take results that are due, of whoever has the fewest under way."""
        if self._jobs.full:
            return False
        waiting = await self._store.read(merges.waiting)
        due = self._clock() - self._behind_seconds()
        begun = await self._jobs.begin_next(waiting, self._claim, self._collect, now=due)
        return begun or await self._forget_old()

    async def _claim(self, account_id: str) -> Collecting | None:
        return await self._store.write(
            merges.claim_due,
            account_id,
            now=self._clock(),
            lease_seconds=LEASE_SECONDS,
            token=self._mint("lease"),
            waited_seconds=self._behind_seconds(),
        )

    def _behind_seconds(self) -> float:
        """For how long results must have been due."""
        return rules.BEHIND_SECONDS if self._rushed() else 0.0

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
        return self._jobs.under_way

    async def ended(self) -> None:
        """Wait until nothing is under way."""
        await self._jobs.ended()

    async def idle_seconds(self) -> float:
        if self._rushed():
            return RUSH_SECONDS
        waiting = await self._store.read(merges.waiting)
        return self._jobs.idle_seconds(waiting, now=self._clock())

    async def close(self) -> None:
        """What is being merged is begun again by whoever comes next: nothing is half written."""
        await self._jobs.close()

    async def _collect(self, held: Collecting) -> None:
        """Whatever goes wrong is a try that failed: put off, and given up in the end."""
        try:
            merged = await self._merge_in_scratch(held)
        except LeaseLost:
            log.warning("merge given up", results_id=held.results.id)
            await self._clear_away(held)
        except (ProviderError, ResultsError, ChildDied, OSError) as error:
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
            merged = await holding(
                self._merge(held, folder), lambda: self._hold(held), lease_seconds=LEASE_SECONDS
            )
            failpoints.reach(failpoints.BEFORE_KEEP)
            await self._store.write(
                merges.keep,
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
        await asyncio.gather(*(self._results_store.delete(name) for name in files_of(found)))

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
                await self._store.write(merges.give_up, held, reason=words, now=now)
            else:
                await self._store.write(
                    merges.put_off, held, reason=words, next_at=next_at, counted=counted, now=now
                )

    async def _hold(self, held: Collecting) -> None:
        now = self._clock()
        await self._store.write(merges.hold, held, now=now, lease_seconds=LEASE_SECONDS)

    async def _merge(self, held: Collecting, folder: Path) -> Merged:
        target = folder / "merged"
        tally, seen = await self._write(held, target)
        most = self._inline_max_bytes
        inline = await heavy(held.batch.project_id, _inline, target, tally, most)
        failpoints.reach(failpoints.BEFORE_STORING)
        await self._results_store.put(held.results.name, target)
        return Merged(tally, inline, seen)

    async def _write(self, held: Collecting, target: Path) -> tuple[Tally, Snapshot | None]:
        """The lines of a batch, or of all parts of a submission."""
        batch = held.batch
        whole = await self._store.read(submissions.of_batch, batch.key)
        if whole is not None:
            await have_parts_fetched(
                whole,
                self._store,
                self._results_store,
                asked_at=held.results.asked_at,
                mint=self._mint,
                now=self._clock(),
            )
            return reconciled(batch, await write_joined(whole, self._results_store, target)), None
        provider = self._provider_of(batch.account_id)
        if provider is None:
            raise ResultsUnavailable(f"The account {batch.account!r} cannot be called now.")
        most = rules.file_max_bytes(batch, self._file_max_bytes)
        fetching = Fetching(
            provider,
            batch,
            target.parent,
            tries=held.results.tries,
            most=most,
            requests=await self._own_requests(batch, target.parent),
        )
        return await fetching.merge(target)

    async def _own_requests(self, batch: Batch, folder: Path) -> Path | None:
        """The requests of a part, as they are kept here: not every provider gives them back."""
        if batch.kind is not BatchKind.PART:
            return None
        id = await self._store.read(kept_parts.id_of, batch.key)
        if id is None:
            return None
        try:
            requests = folder / "requests"
            await self._results_store.fetch(new_name(batch.project_id, id), requests)
        except ResultsGone:
            return None
        return requests

    async def _discard_requests(self, batch_key: int, *, every: bool = False) -> None:
        """What a submission asked for is hardly needed once its answers are joined."""
        whole = await self._store.read(submissions.of_batch, batch_key)
        if whole is not None and whole.batch.status.ended:
            with contextlib.suppress(ResultsError):
                await discard_requests(whole, self._results_store, every=every)


def _reason(error: Exception) -> str:
    """What went wrong, for whoever asks for the results."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full: make room in the folder of the results."
    known = isinstance(error, (ProviderError, ResultsError, ChildDied, OSError))
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


class Fetching:
    """One try to merge the results of one batch."""

    def __init__(
        self,
        provider: Provider,
        batch: Batch,
        folder: Path,
        *,
        tries: int,
        most: int,
        requests: Path | None = None,
    ) -> None:
        """`most` is how many bytes a file may have; `tries` counts this one too.

        Where `requests` are here, in OpenAI's shape, the provider is not asked for the input.
        """
        self._provider = provider
        self._batch = batch
        self._folder = folder
        self._tries = tries
        self._most = most
        self._requests = requests
        self._notes: list[str] = []

    async def merge(self, target: Path) -> tuple[Tally, Snapshot | None]:
        """Write the lines to `target`. Returns also the batch as it is now, where it was asked for.

        Raises ProviderError.
        """
        known = self._batch.snapshot or Snapshot(id=self._batch.id, provider_status="", status=None)
        seen = await self._looked_at_again(known)
        asked = self._requests is None and self._provider.profile.returns_inputs
        input_ref = seen.input_file_id if asked else None
        input = self._requests or await self._dispensable("input", input_ref, is_input=True)
        answers = []
        for name, ref in (("output", seen.output_file_id), ("results", seen.results_ref)):
            if ref is not None:
                answers.append(await self._fetch(name, ref))
        errors = await self._dispensable("error", seen.error_file_id)
        answers += [] if errors is None else [errors]
        if input is None:
            input = await self._dispensable("input", input_ref, is_input=True)
        files = answers if input is None else [input, *answers]
        code, message = rules.missing_answer(self._batch)
        tally = await apart(
            self._batch.project_id,
            files,
            merge_files,
            input,
            answers,
            target,
            missing_code=code,
            missing_message=message,
        )
        short = rules.shortfall(replace(self._batch, snapshot=seen), tally, tries=self._tries)
        if short is not None:
            raise ProviderUnavailable(short)
        keeps_order = self._provider.profile.answers_in_order and len(answers) == 1
        noted = replace(
            tally,
            in_input_order=tally.in_input_order or keeps_order,
            notes=(*tally.notes, *self._notes),
        )
        return reconciled(replace(self._batch, snapshot=seen), noted), (
            None if seen is known else seen
        )

    async def _looked_at_again(self, known: Snapshot) -> Snapshot:
        """The batch, with the files that the provider has named since it ended."""
        waits = rules.awaits_files(self._batch, tries=self._tries)
        if not waits and not rules.asks_again(known, tries=self._tries):
            return known
        seen = await self._provider.retrieve(self._batch.id)
        if seen.status is not self._batch.status:
            raise ProviderUnavailable(
                f"The provider has not named the files of the results yet, and says"
                f" {seen.provider_status!r} of the batch."
            )
        if rules.awaits_files(replace(self._batch, snapshot=seen), tries=self._tries):
            raise ProviderUnavailable("The provider has not named the file of the results yet.")
        return seen

    async def _dispensable(
        self, name: str, ref: str | None, *, is_input: bool = False
    ) -> Path | None:
        """A file that the results are merged without, where it cannot be had for long."""
        if ref is None:
            return None
        try:
            return await self._fetch(name, ref, is_input=is_input)
        except ProviderError as error:
            if not rules.may_do_without(error, tries=self._tries, is_input=is_input):
                raise
            if not is_input:
                self._notes.append(f"The {name} file could not be had: {error.message}")
            return None

    async def _fetch(self, name: str, ref: str, *, is_input: bool = False) -> Path:
        packed, path = self._folder / f"{name}.sent", self._folder / name
        arrived = await self._provider.results(
            ref, packed, most_bytes=self._most, plain=self._tries > 1
        )
        owner, lines = self._batch.project_id, self._provider.lines
        reshape = None
        if lines is not None:
            reshape = lines.request if is_input else lines.answer
        await apart(
            owner, [packed], unpack, packed, path, arrived, most_bytes=self._most, reshape=reshape
        )
        packed.unlink(missing_ok=True)
        return path


def reconciled(batch: Batch, tally: Tally) -> Tally:
    """With a note where the provider counts something else than its files hold."""
    wrong = rules.mismatch(batch, tally)
    return replace(tally, notes=(*tally.notes, wrong)) if wrong else tally


NOTES_MAX = 10


async def have_parts_fetched(
    found: Submission,
    store: Store,
    results_store: ResultsStore,
    *,
    asked_at: float | None,
    mint: Mint,
    now: float,
) -> None:
    """Return once the answers of all parts are here, or cannot be had.

    Answers that are gone from where they were kept are asked of the provider again, and those
    that could not be had, if somebody asked again (`asked_at`). Raises ResultsUnavailable, and
    PartsAwaited while parts are being fetched.
    """
    unfetched = [
        part
        for part in found.parts
        if submission.is_unfetched(part, asked_at=asked_at) or await _is_gone(part, results_store)
    ]
    if unfetched:
        pairs = [(p.batch, p.results.id if p.results else None) for p in unfetched if p.batch]
        await store.write(results.want_anew, pairs, mint=mint, now=now)
        raise ResultsUnavailable(
            f"The answers of {len(unfetched)} parts are not here: the provider is asked for them"
            " again."
        )
    states = [part.results.state for part in found.parts if part.results is not None]
    waiting = states.count(ResultsState.WAITING)
    if waiting:
        raise PartsAwaited(f"The answers of {waiting} parts are being fetched.")
    if states and ResultsState.READY not in states:
        raise ResultsUnavailable(f"No answers can be had. {_why_unanswered(found.parts)}")


async def _is_gone(part: Part, results_store: ResultsStore) -> bool:
    """Whether merged answers are not there any more as they were written."""
    found = part.results
    if found is None or found.state is not ResultsState.READY or found.tally is None:
        return False
    try:
        return await results_store.size(found.name) != found.tally.size
    except ResultsGone:
        return True


def _why_unanswered(parts: Sequence[Part]) -> str:
    reasons = [part.results.reason for part in parts if part.results and part.results.reason]
    return reasons[0] if reasons else ""


async def write_joined(found: Submission, results_store: ResultsStore, target: Path) -> Tally:
    """Write all answers to `target`, in the order of the requests. Raises ResultsError."""
    positions, notes, in_order = [], [], True
    for _, group in groupby(found.parts, key=lambda part: part.position):
        parts = list(group)
        rounds = await _fetch_rounds(found, parts, results_store, target.parent)
        positions.append(rounds)
        notes += _notes(parts, rounds)
        in_order &= _is_in_order(parts[0], rounds)
    files = [file for one in positions for file in (one.requests, *one.answers) if file]
    tally = await apart(found.batch.project_id, files, join_files, positions, target)
    return replace(
        tally,
        in_input_order=tally.in_input_order and in_order,
        notes=(*tally.notes, *notes[:NOTES_MAX]),
    )


async def _fetch_rounds(
    found: Submission, parts: Sequence[Part], results_store: ResultsStore, folder: Path
) -> Rounds:
    answers = []
    for part in parts:
        if part.results is not None and part.results.state is ResultsState.READY:
            answers.append(folder / f"{part.id}.out")
            await results_store.fetch(part.results.name, answers[-1])
    file = folder / f"{parts[0].id}.in"
    requests: Path | None = file
    try:
        await results_store.fetch(new_name(found.batch.project_id, parts[0].id), file)
    except ResultsGone:
        requests = answers[0] if submission.names_requests(parts[0]) else None
    code, message = _missing(found, parts[-1])
    return Rounds(requests=requests, answers=answers, missing_code=code, missing_message=message)


def _is_in_order(first: Part, rounds: Rounds) -> bool:
    """Whether the requests stand as they were handed in, also where answers stand for them."""
    if rounds.requests is None or rounds.requests not in rounds.answers:
        return True
    tally = first.results.tally if first.results else None
    return tally is not None and tally.in_input_order


def _notes(parts: Sequence[Part], rounds: Rounds) -> list[str]:
    """What could not be had."""
    notes = [
        f"The answers of batch {part.batch.id} could not be fetched: {part.results.reason}"
        for part in parts
        if part.batch and part.results and part.results.state is ResultsState.FAILED
    ]
    if rounds.requests is None:
        notes.append(
            f"The requests of part {parts[0].position} ({parts[0].lines} lines) are not kept any"
            " more: those without an answer are not listed."
        )
    return notes


def _missing(found: Submission, last: Part) -> tuple[str, str]:
    """What is said of requests of which there is no answer."""
    if last.results is not None and last.results.state is ResultsState.FAILED:
        return rules.NEVER_RUN[0], f"The answer could not be fetched: {last.results.reason}"
    if last.batch is not None:
        return rules.missing_answer(last.batch)
    if last.reason is not None:
        return rules.NEVER_RUN[0], f"The provider did not take the batch: {last.reason}"
    return rules.missing_answer(found.batch)


async def discard_requests(found: Submission, results_store: ResultsStore, *, every: bool) -> None:
    """Delete the requests that are of no use once the answers are joined, or `every` one."""
    for part in found.parts:
        if every or not submission.keeps_requests(part):
            await results_store.delete(new_name(found.batch.project_id, part.id))
