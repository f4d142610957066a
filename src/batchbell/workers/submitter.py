"""The submitter: hands in the parts of submissions, tries again what may be, and ends them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from batchbell import failpoints
from batchbell.core import governor, refusals, twins
from batchbell.core import submission as rules
from batchbell.core.errors import (
    ChildDied,
    LeaseLost,
    ProviderAuthError,
    ProviderBillingError,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
    ResultsError,
    ResultsUnavailable,
)
from batchbell.core.governor import Learnt
from batchbell.core.limits import Limits
from batchbell.core.model import Batch, Mint, Snapshot, Status
from batchbell.core.submission import TAG, Expiry, Part, PartState, Submission, new_name
from batchbell.core.twins import Doubt, Marks
from batchbell.files.preflight import Part as Piece
from batchbell.files.preflight import split_file
from batchbell.files.results_store import ResultsStore
from batchbell.files.rounds import gather_passing
from batchbell.files.scratch import scratch_folder
from batchbell.observability import Metrics
from batchbell.providers.protocol import Order, Provider
from batchbell.storage import parts
from batchbell.storage.engine import SUBMISSIONS, Store
from batchbell.storage.submissions import NewPart
from batchbell.threads import apart, disk
from batchbell.workers.jobs import Jobs, Shares, holding

log = structlog.get_logger("batchbell.submitter")

LEASE_SECONDS = 120.0
SHARES = Shares(most=64, of_account=4, of_project=8)
"""Each uploads one part at a time, and most wait for a provider. One that does not answer holds up
its own account only."""


def no_expiry(_: Batch) -> Expiry:
    """The provider deletes files when it likes."""
    return Expiry()


class Submitter:
    """See the module. `provider_of` gives the way to an account's provider, by the account's id.

    `expiry` says when the provider of a submission is to delete its files.
    """

    name = "submitter"

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
        expiry: Callable[[Batch], Expiry] = no_expiry,
    ) -> None:
        self.signal = store.signal(SUBMISSIONS)
        self._store = store
        self._results_store = results_store
        self._provider_of = provider_of
        self._clock = clock
        self._mint = mint
        self._rand = rand
        self._scratch = scratch
        self._handing_in = HandingIn(
            store, results_store, clock=clock, mint=mint, rand=rand, expiry=expiry
        )
        self._splitting = Splitting(store, results_store, clock=clock, mint=mint)
        self._jobs = Jobs(self.name, SHARES, signal=self.signal, metrics=metrics)

    async def step(self) -> bool:
        """Take a submission that is due, of whoever has the fewest under way."""
        if self._jobs.full:
            return False
        waiting = await self._store.read(parts.waiting)
        return await self._jobs.begin_next(waiting, self._claim, self._go_on, now=self._clock())

    async def _claim(self, account_id: str) -> Submission | None:
        return await self._store.write(
            parts.claim_due,
            account_id,
            now=self._clock(),
            lease_seconds=LEASE_SECONDS,
            token=self._mint("lease"),
        )

    async def ended(self) -> None:
        """Wait until nothing is under way."""
        await self._jobs.ended()

    async def idle_seconds(self) -> float:
        waiting = await self._store.read(parts.waiting)
        return self._jobs.idle_seconds(waiting, now=self._clock())

    async def close(self) -> None:
        """What is under way is gone on with by whoever comes next."""
        await self._jobs.close()

    async def _go_on(self, held: Submission) -> None:
        try:
            await holding(
                self._advance(held), lambda: self._hold(held), lease_seconds=LEASE_SECONDS
            )
            failpoints.reach(failpoints.BEFORE_FINISH)
            after = await self._store.write(parts.finish, held, mint=self._mint, now=self._clock())
        except LeaseLost:
            log.warning("submission given up: another worker's", submission=held.id)
        except (ProviderError, ResultsError, ChildDied, OSError) as error:
            await self._put_off(held, error)
        else:
            if after.batch.status is not held.batch.status:
                log.info("submission moved", submission=held.id, status=after.batch.status)

    async def _put_off(self, held: Submission, error: Exception) -> None:
        words = getattr(error, "message", None) or str(error)
        asked = error.retry_after_seconds if isinstance(error, ProviderError) else None
        wait = rules.failure_wait(held.failures + 1, asked_seconds=asked, rand=self._rand())
        log.warning("submission waits", submission=held.id, error=words, seconds=round(wait))
        now = self._clock()
        await self._store.write(
            parts.put_off, held, reason=words, next_at=now + wait, mint=self._mint, now=now
        )

    async def _hold(self, held: Submission) -> None:
        now = self._clock()
        await self._store.write(parts.hold, held, now=now, lease_seconds=LEASE_SECONDS)

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
            parts.review, held, rand=self._rand(), mint=self._mint, now=self._clock()
        )

    async def _look_through(self, held: Submission, part: Part, folder: Path) -> None:
        """Have requests tried again whose answers may be better another time."""
        again = await self._gather(held, part, folder) if held.may_retry(part) else None
        now = self._clock()
        await self._store.write(parts.look_through, held, part, again, now=now)

    async def _gather(self, held: Submission, part: Part, folder: Path) -> NewPart | None:
        project_id = held.batch.project_id
        requests, answers, target = (folder / f"{part.id}.{n}" for n in ("in", "out", "again"))
        assert part.results is not None
        await self._results_store.fetch(new_name(project_id, part.id), requests)
        await self._results_store.fetch(part.results.name, answers)
        files = [requests, answers]
        try:
            gathered = await apart(
                project_id, files, gather_passing, requests, answers, target, runs=part.runs
            )
        except ChildDied as error:
            if held.failures < rules.DEATHS_MAX:
                raise
            log.warning("requests not tried again", submission=held.id, error=str(error))
            return None
        if not gathered.lines:
            return None
        tokens = part.tokens * gathered.size // part.size
        facts = {"submission": held.id, "lines": gathered.lines, "tokens": tokens}
        if not held.may_spend(tokens):
            log.warning("requests not tried again: retry_max_tokens", **facts)
            return None
        id = self._mint("prt")
        await self._results_store.put(new_name(project_id, id), target)
        log.info("requests tried again", part=id, **facts)
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
                await self._store.write(parts.reject, held, part, reason=None)
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
            await self._store.write(parts.reject, held, part, reason=None)
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


UNSEEN = "It may have been made, and the provider shows no list of batches to look for it."


class HandingIn:
    """See the module."""

    def __init__(
        self,
        store: Store,
        results_store: ResultsStore,
        *,
        clock: Callable[[], float],
        mint: Mint,
        rand: Callable[[], float],
        expiry: Callable[[Batch], Expiry],
    ) -> None:
        self._store = store
        self._results_store = results_store
        self._clock = clock
        self._mint = mint
        self._rand = rand
        self._expiry = expiry
        self._expiries: dict[str, Expiry] = {}
        """By account, where its provider has refused ours."""

    async def hand_in(self, provider: Provider, held: Submission, part: Part, folder: Path) -> bool:
        """Whether it is in, or given up; False where there is no room for it now.

        Raises ProviderError, ResultsError and LeaseLost.
        """
        if part.state is PartState.SUBMITTING:
            if part.asked_at is not None and await self._settled(provider, held, part):
                return True
        else:
            meant = await self._store.write(parts.intend, held, part, now=self._clock())
            if meant is None:
                return False
            part = meant
            failpoints.reach(failpoints.AFTER_INTENT)
        file, expiry = folder / part.id, self._expiry_of(provider, held)
        if part.file_id is None or rules.is_stale(part, expiry, now=self._clock()):
            try:
                part = await self._upload(provider, held, part, file)
            except (ProviderRejected, ProviderRateLimited) as error:
                return await self._refused_upload(provider, held, part, error)
        return await self._create(provider, held, part, file)

    async def withdraw(self, provider: Provider, held: Submission, part: Part) -> bool:
        """Give up a part that was about to be handed in; False where it was after all.

        Raises ProviderUnavailable while that cannot be said.
        """
        if part.asked_at is not None and await self._settled(provider, held, part):
            return False
        await self._store.write(parts.reject, held, part, reason=None)
        return True

    async def _upload(self, provider: Provider, held: Submission, part: Part, file: Path) -> Part:
        """A file whose upload nobody noted is uploaded again: it costs nothing but its place.

        Where the provider takes requests with the call that creates, they stay in `file`.
        """
        await self._results_store.fetch(new_name(held.batch.project_id, part.id), file)
        at = self._clock()
        file_id = await provider.upload(
            file,
            name=f"{part.tag}.jsonl",
            expires_seconds=self._expiry_of(provider, held).input_seconds,
        )
        if file_id is None:
            return part
        failpoints.reach(failpoints.AFTER_UPLOAD)
        noted = await self._store.write(parts.uploaded, held, part, file_id=file_id, at=at)
        failpoints.reach(failpoints.AFTER_FILE)
        await disk(file.unlink)
        return noted

    async def _create(self, provider: Provider, held: Submission, part: Part, file: Path) -> bool:
        now = self._clock()
        part = await self._store.write(
            parts.asking,
            held,
            part,
            now=now,
            ask_again_at=now + twins.look_for_seconds(Doubt.GRAVE),
        )
        order = Order(
            requests=file,
            file=part.file_id,
            endpoint=held.snapshot.endpoint or "",
            model=held.snapshot.model,
            metadata=held.snapshot.metadata or {},
            tag=(TAG, part.tag),
            output_expires_seconds=self._expiry_of(provider, held).output_seconds,
        )
        try:
            seen = await provider.submit(order)
        except ProviderError as error:
            return await self._not_made(provider, held, part, error)
        failpoints.reach(failpoints.AFTER_CREATE)
        await self._note(held, part, seen)
        log.info("part handed in", submission=held.id, part=part.tag, batch=seen.id)
        return True

    async def _not_made(
        self, provider: Provider, held: Submission, part: Part, error: ProviderError
    ) -> bool:
        """No batch came back. Raises the error where the part is to be tried again."""
        doubt = twins.doubt(error.status, reached=error.code != twins.NOT_REACHED)
        own = isinstance(error, (ProviderAuthError, ProviderBillingError))
        if doubt is Doubt.NONE and error.status is not None and not own:
            return await self._refused(provider, held, part, error)
        wait = twins.look_for_seconds(doubt)
        at = None if doubt is Doubt.NONE else self._clock() + wait
        await self._answered(held, part, error, ask_again_at=at)
        raise error

    async def _answered(
        self,
        held: Submission,
        part: Part,
        error: ProviderError,
        *,
        ask_again_at: float | None = None,
        forget_file: bool = False,
    ) -> None:
        await self._store.write(
            parts.answered,
            held,
            part,
            ask_again_at=ask_again_at,
            reason=error.message,
            forget_file=forget_file,
        )

    async def _note(self, held: Submission, part: Part, seen: Snapshot) -> None:
        await self._store.write(
            parts.handed_in, held, part, seen, mint=self._mint, now=self._clock()
        )
        failpoints.reach(failpoints.AFTER_HAND_IN)

    async def _settled(self, provider: Provider, held: Submission, part: Part) -> bool:
        """Whether the part was handed in already, or must be given up in doubt.

        False where it was not. Raises ProviderError while that cannot be said.
        """
        try:
            seen, whole = await self._find(provider, held, part)
        except ProviderError as error:
            return await self._unseen(held, part, error)
        if seen is not None:
            await self._note(held, part, seen)
            log.info("part was handed in already", submission=held.id, part=part.tag, batch=seen.id)
            return True
        if whole:
            await self._store.write(parts.looked, held, part)
        looks = part.looks + whole
        if twins.may_ask_again(looks=looks, not_before=part.ask_again_at, now=self._clock()):
            return False
        raise ProviderUnavailable(
            f"{part.reason or 'The answer was lost.'} The batch may have been made: it is looked"
            " for before the provider is asked again."
        )

    async def _unseen(self, held: Submission, part: Part, error: ProviderError) -> bool:
        """As `_settled`, for a host whose list cannot be read."""
        assert part.asked_at is not None
        again = twins.may_ask_unseen(
            asked_at=part.asked_at, not_before=part.ask_again_at, now=self._clock()
        )
        if again is None or error.status not in twins.WITHOUT_LIST:
            raise error
        if not again:
            await self._give_up(held, part, UNSEEN)
        return not again

    async def _find(
        self, provider: Provider, held: Submission, part: Part
    ) -> tuple[Snapshot | None, bool]:
        """What the lost call has made, and whether all of the list was seen."""
        assert part.asked_at is not None
        marks = Marks(
            asked_at=part.intent_at or part.asked_at,
            input_file_id=part.file_id,
            lines=part.lines,
            endpoint=held.snapshot.endpoint,
            tag=(TAG, part.tag),
        )
        found, whole = await provider.find(marks)
        ids = [one.id for one in found]
        taken = await self._store.read(
            parts.taken, held.batch.account_id, ids, asked_at=marks.asked_at
        )
        return next((one for one in found if one.id not in taken), None), whole

    async def _refused_upload(
        self, provider: Provider, held: Submission, part: Part, error: ProviderError
    ) -> bool:
        if refusals.is_about_expiry(error.code, error.message):
            before = self._expiry_of(provider, held)
            if before.input_seconds is not None:
                await self._change_expiry(held, part, before, error, of_input=True)
                raise ProviderUnavailable(error.message) from error
        return await self._refused(provider, held, part, error)

    async def _refused(
        self, provider: Provider, held: Submission, part: Part, error: ProviderError
    ) -> bool:
        """Nothing was made, and the provider says why."""
        now = self._clock()
        if governor.says_no_room(error.code, error.message) and part.tries < rules.REFUSALS_MAX:
            rand = self._rand()
            await self._store.write(
                parts.refuse, held, part, message=error.message, rand=rand, now=now
            )
            return False
        before = self._expiry_of(provider, held)
        about_expiry = refusals.is_about_expiry(error.code, error.message)
        if about_expiry and before.output_seconds is not None:
            await self._change_expiry(held, part, before, error, of_input=False)
            await self._answered(held, part, error)
            raise ProviderUnavailable(error.message) from error
        since = part.intent_at or now
        about_file = part.file_id is not None and refusals.is_about_file(error.code, error.message)
        final = isinstance(error, ProviderRejected) and (
            error.status not in refusals.PASSING_STATUSES
        )
        passing = not final and not about_file
        if passing or (about_file and now < since + refusals.FILE_WAIT_SECONDS):
            gone = about_file and now > (part.uploaded_at or 0.0) + refusals.FILE_GONE_SECONDS
            await self._answered(held, part, error, forget_file=gone)
            raise error
        log.warning("part rejected", submission=held.id, part=part.tag, error=error.message)
        await self._give_up(held, part, error.message)
        return True

    async def _give_up(self, held: Submission, part: Part, reason: str) -> None:
        await self._store.write(parts.reject, held, part, reason=reason)

    def _expiry_of(self, provider: Provider, held: Submission) -> Expiry:
        learnt = self._expiries.get(held.batch.account_id)
        return learnt or provider.profile.expiry_near(self._expiry(held.batch))

    async def _change_expiry(
        self, held: Submission, part: Part, before: Expiry, error: ProviderError, *, of_input: bool
    ) -> None:
        """From now on ask this account for a time that its provider allows, and say so."""
        after = refusals.expiry_after(before, error.message, of_input=of_input)
        self._expiries[held.batch.account_id] = after
        old = before.input_seconds if of_input else before.output_seconds
        new = after.input_seconds if of_input else after.output_seconds
        what = "input" if of_input else "output"
        instead = "no time is asked for" if new is None else f"{new} s is asked for"
        said = f"The provider refused to forget the {what} file after {old} s; {instead} instead."
        await self._store.write(parts.note, held, part, note=f"{said} {error.message}")
        log.warning(
            "expiry refused",
            account=held.batch.account,
            submission=held.id,
            files=what,
            refused_seconds=old,
            seconds=new,
            error=error.message,
        )


class Splitting:
    """See the module."""

    def __init__(
        self, store: Store, results_store: ResultsStore, *, clock: Callable[[], float], mint: Mint
    ) -> None:
        self._store = store
        self._results_store = results_store
        self._clock = clock
        self._mint = mint

    async def split_large(self, held: Submission, folder: Path) -> Submission:
        """The submission with parts that may fit. Raises ResultsError and LeaseLost."""
        account_id, model = held.batch.account_id, held.snapshot.model or ""
        known = await self._store.read(parts.learnt, account_id, model)
        for part in held.parts:
            tokens = self._split_at(part, known)
            if tokens is not None:
                held = await self._split(held, part, tokens, known, folder)
        return held

    def _split_at(self, part: Part, known: Learnt) -> int | None:
        """A later round is never larger than the first, which did fit."""
        if part.state is not PartState.WAITING or part.round > 1 or part.lines == 1:
            return None
        tokens = governor.estimate(known, part.size)
        return governor.split_at(known, tokens=tokens, tries=part.tries, now=self._clock())

    async def _split(
        self, held: Submission, part: Part, tokens: int, known: Learnt, folder: Path
    ) -> Submission:
        project_id = held.batch.project_id
        old = new_name(project_id, part.id)
        pieces = folder / f"{part.id}.pieces"
        found = await disk(_place, pieces)
        await self._results_store.fetch(old, found)
        try:
            made = await apart(
                project_id,
                [found],
                split_file,
                found,
                limits=Limits(tokens=tokens),
                bytes_per_token=known.bytes_per_token,
                runs=part.runs,
            )
        except ChildDied as error:
            if held.failures >= rules.DEATHS_MAX:
                await self._store.write(parts.reject, held, part, reason=str(error))
            raise
        new = [await self._shelve(held, piece) for piece in made]
        after = await self._store.write(parts.replace_part, held, part, new, now=self._clock())
        await self._results_store.delete(old)
        log.info("part split", submission=held.id, part=part.id, into=len(new), tokens=tokens)
        return after

    async def _shelve(self, held: Submission, piece: Piece) -> NewPart:
        new = NewPart(
            self._mint("prt"),
            piece.lines,
            piece.size,
            piece.tokens,
            piece.numbering.runs,
        )
        await self._results_store.put(new_name(held.batch.project_id, new.id), piece.path)
        return new


def _place(pieces: Path) -> Path:
    pieces.mkdir()
    return pieces / "requests"
