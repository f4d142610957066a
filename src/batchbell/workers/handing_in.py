"""Handing a part in at its provider: once, whoever dies on the way.

An intent is written first, then the provider's file, then that the provider is asked, then the
batch. After an unclear answer the batch is looked for before the provider is asked again: see
`core.twins`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from batchbell import failpoints
from batchbell.core import governor, refusals, twins
from batchbell.core import submission as rules
from batchbell.core.errors import (
    ProviderAuthError,
    ProviderBillingError,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
)
from batchbell.core.model import Mint, Snapshot
from batchbell.core.submission import TAG, Expiry, Part, PartState, Submission, new_name
from batchbell.core.twins import Doubt, Marks
from batchbell.files.shelf import Shelf, fetch
from batchbell.providers.protocol import Provider
from batchbell.providers.search import find_twins
from batchbell.storage import submitting
from batchbell.storage.engine import Store

log = structlog.get_logger("batchbell.submitter")

WITHOUT_LIST = frozenset({404, 405, 501})
"""What a host answers that has no list of batches."""
UNSEEN = "It may have been made, and the provider shows no list of batches to look for it."


class HandingIn:
    """See the module."""

    def __init__(
        self,
        store: Store,
        shelf: Shelf,
        *,
        clock: Callable[[], float],
        mint: Mint,
        rand: Callable[[], float],
        expiry: Expiry,
    ) -> None:
        self._store = store
        self._shelf = shelf
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
            meant = await self._store.write(submitting.intend, held, part, now=self._clock())
            if meant is None:
                return False
            part = meant
            failpoints.reach(failpoints.AFTER_INTENT)
        if part.file_id is None or rules.is_stale(part, self._expiry_of(held), now=self._clock()):
            try:
                part = await self._upload(provider, held, part, folder)
            except (ProviderRejected, ProviderRateLimited) as error:
                return await self._refused_upload(held, part, error)
        return await self._create(provider, held, part)

    async def withdraw(self, provider: Provider, held: Submission, part: Part) -> bool:
        """Give up a part that was about to be handed in; False where it was after all.

        Raises ProviderUnavailable while that cannot be said.
        """
        if part.asked_at is not None and await self._settled(provider, held, part):
            return False
        await self._store.write(submitting.reject, held, part, trouble=None)
        return True

    async def _upload(self, provider: Provider, held: Submission, part: Part, folder: Path) -> Part:
        """A file whose upload nobody noted is uploaded again: it costs nothing but its place."""
        file = folder / part.id
        await fetch(self._shelf, new_name(held.batch.project_id, part.id), file)
        at = self._clock()
        file_id = await provider.upload(
            file,
            name=f"{part.tag}.jsonl",
            expires_seconds=self._expiry_of(held).input_seconds,
        )
        failpoints.reach(failpoints.AFTER_UPLOAD)
        noted = await self._store.write(submitting.uploaded, held, part, file_id=file_id, at=at)
        failpoints.reach(failpoints.AFTER_FILE)
        file.unlink()
        return noted

    async def _create(self, provider: Provider, held: Submission, part: Part) -> bool:
        assert part.file_id is not None
        now = self._clock()
        part = await self._store.write(
            submitting.asking,
            held,
            part,
            now=now,
            ask_again_at=now + twins.look_for_seconds(Doubt.GRAVE),
        )
        assert part.file_id is not None
        try:
            seen = await provider.create(
                part.file_id,
                url=held.snapshot.endpoint or "",
                metadata={**(held.snapshot.metadata or {}), TAG: part.tag},
                output_expires_seconds=self._expiry_of(held).output_seconds,
            )
        except ProviderError as error:
            return await self._not_made(held, part, error)
        failpoints.reach(failpoints.AFTER_CREATE)
        await self._note(held, part, seen)
        log.info("part handed in", submission=held.id, part=part.tag, batch=seen.id)
        return True

    async def _not_made(self, held: Submission, part: Part, error: ProviderError) -> bool:
        """No batch came back. Raises the error where the part is to be tried again."""
        doubt = twins.doubt(error.status, reached=error.code != twins.NOT_REACHED)
        own = isinstance(error, (ProviderAuthError, ProviderBillingError))
        if doubt is Doubt.NONE and error.status is not None and not own:
            return await self._refused(held, part, error)
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
            submitting.answered,
            held,
            part,
            ask_again_at=ask_again_at,
            trouble=error.message,
            forget_file=forget_file,
        )

    async def _note(self, held: Submission, part: Part, seen: Snapshot) -> None:
        await self._store.write(
            submitting.handed_in, held, part, seen, mint=self._mint, now=self._clock()
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
            await self._store.write(submitting.looked, held, part)
        looks = part.looks + whole
        if twins.may_ask_again(looks=looks, not_before=part.ask_again_at, now=self._clock()):
            return False
        raise ProviderUnavailable(
            f"{part.trouble or 'The answer was lost.'} The batch may have been made: it is looked"
            " for before the provider is asked again."
        )

    async def _unseen(self, held: Submission, part: Part, error: ProviderError) -> bool:
        """As `_settled`, for a host whose list cannot be read."""
        assert part.asked_at is not None
        again = twins.may_ask_unseen(
            asked_at=part.asked_at, not_before=part.ask_again_at, now=self._clock()
        )
        if again is None or error.status not in WITHOUT_LIST:
            raise error
        if not again:
            await self._give_up(held, part, UNSEEN)
        return not again

    async def _find(
        self, provider: Provider, held: Submission, part: Part
    ) -> tuple[Snapshot | None, bool]:
        """What the lost call has made, and whether all of the list was seen."""
        assert part.asked_at is not None
        assert part.file_id is not None
        marks = Marks(
            asked_at=part.intent_at or part.asked_at,
            input_file_id=part.file_id,
            endpoint=held.snapshot.endpoint,
            tag=(TAG, part.tag),
        )
        found, whole = await find_twins(provider, marks)
        taken = await self._store.read(
            submitting.of_parts, held.batch.account_id, [one.id for one in found]
        )
        return next((one for one in found if one.id not in taken), None), whole

    async def _refused_upload(self, held: Submission, part: Part, error: ProviderError) -> bool:
        if refusals.is_about_expiry(error.code, error.message):
            expiry = self._expiry_of(held)
            if expiry.input_seconds is not None:
                await self._change_expiry(held, part, error, of_input=True)
                raise ProviderUnavailable(error.message) from error
        return await self._refused(held, part, error)

    async def _refused(self, held: Submission, part: Part, error: ProviderError) -> bool:
        """Nothing was made, and the provider says why."""
        now = self._clock()
        if governor.says_no_room(error.code, error.message) and part.tries < rules.REFUSALS_MAX:
            rand = self._rand()
            await self._store.write(
                submitting.refuse, held, part, message=error.message, rand=rand, now=now
            )
            return False
        asked = self._expiry_of(held).output_seconds
        if refusals.is_about_expiry(error.code, error.message) and asked is not None:
            await self._change_expiry(held, part, error, of_input=False)
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

    async def _give_up(self, held: Submission, part: Part, trouble: str) -> None:
        await self._store.write(submitting.reject, held, part, trouble=trouble)

    def _expiry_of(self, held: Submission) -> Expiry:
        return self._expiries.get(held.batch.account_id, self._expiry)

    async def _change_expiry(
        self, held: Submission, part: Part, error: ProviderError, *, of_input: bool
    ) -> None:
        """From now on ask this account for a time that its provider allows, and say so."""
        before = self._expiry_of(held)
        after = refusals.expiry_after(before, error.message, of_input=of_input)
        self._expiries[held.batch.account_id] = after
        old = before.input_seconds if of_input else before.output_seconds
        new = after.input_seconds if of_input else after.output_seconds
        what = "input" if of_input else "output"
        instead = "no time is asked for" if new is None else f"{new} s is asked for"
        said = f"The provider refused to forget the {what} file after {old} s; {instead} instead."
        await self._store.write(submitting.note, held, part, note=f"{said} {error.message}")
        log.warning(
            "expiry refused",
            account=held.batch.account,
            submission=held.id,
            files=what,
            refused_seconds=old,
            seconds=new,
            error=error.message,
        )
