"""Handing a part in at its provider: once, whoever dies on the way.

An intent is written first, then the provider's file, then the batch. Only between the last two
may a batch be there that we do not know of: then it is looked for, by the tag in its metadata.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from batchbell import failpoints
from batchbell.core import governor
from batchbell.core import submission as rules
from batchbell.core.errors import ProviderRateLimited, ProviderRejected
from batchbell.core.model import Mint, Snapshot
from batchbell.core.submission import TAG, Expiry, Part, PartState, Submission, new_name
from batchbell.files.shelf import Shelf, fetch
from batchbell.providers.protocol import Provider
from batchbell.storage import submitting
from batchbell.storage.engine import Store

log = structlog.get_logger("batchbell.submitter")

CLOCKS_APART_SECONDS = 600.0
"""By how much a provider's clock may be behind ours."""


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

    async def hand_in(self, provider: Provider, held: Submission, part: Part, folder: Path) -> bool:
        """Whether it is in, or given up; False where there is no room for it now.

        Raises ProviderError, ResultsError and LeaseLost.
        """
        if part.state is PartState.SUBMITTING:
            if await self._found_again(provider, held, part):
                return True
        else:
            meant = await self._store.write(submitting.intend, held, part, now=self._clock())
            if meant is None:
                return False
            part = meant
            failpoints.reach(failpoints.AFTER_INTENT)
        try:
            await self._send(provider, held, part, folder)
        except (ProviderRejected, ProviderRateLimited) as error:
            return await self._turned_away(held, part, error)
        return True

    async def withdraw(self, provider: Provider, held: Submission, part: Part) -> None:
        """Give up a part that was about to be handed in, unless it was after all."""
        if not await self._found_again(provider, held, part):
            await self._store.write(submitting.reject, held, part, trouble=None)

    async def _send(self, provider: Provider, held: Submission, part: Part, folder: Path) -> None:
        if part.file_id is None or rules.is_stale(part, self._expiry, now=self._clock()):
            part = await self._upload(provider, held, part, folder)
        assert part.file_id is not None
        metadata = {**(held.snapshot.metadata or {}), TAG: part.tag}
        url = held.snapshot.endpoint or ""
        seen = await provider.create(
            part.file_id,
            url=url,
            metadata=metadata,
            output_expires_seconds=self._expiry.output_seconds,
        )
        failpoints.reach(failpoints.AFTER_CREATE)
        await self._note(held, part, seen)
        log.info("part handed in", submission=held.id, part=part.tag, batch=seen.id)

    async def _upload(self, provider: Provider, held: Submission, part: Part, folder: Path) -> Part:
        """A file whose upload nobody noted is uploaded again: it costs nothing but its place."""
        file = folder / part.id
        await fetch(self._shelf, new_name(held.batch.project_id, part.id), file)
        at = self._clock()
        file_id = await provider.upload(
            file, name=f"{part.tag}.jsonl", expires_seconds=self._expiry.input_seconds
        )
        failpoints.reach(failpoints.AFTER_UPLOAD)
        noted = await self._store.write(submitting.uploaded, held, part, file_id=file_id, at=at)
        failpoints.reach(failpoints.AFTER_FILE)
        file.unlink()
        return noted

    async def _note(self, held: Submission, part: Part, seen: Snapshot) -> None:
        await self._store.write(
            submitting.handed_in, held, part, seen, mint=self._mint, now=self._clock()
        )
        failpoints.reach(failpoints.AFTER_HAND_IN)

    async def _found_again(self, provider: Provider, held: Submission, part: Part) -> bool:
        """Whether somebody had handed it in already, and could not tell."""
        if part.file_id is None:
            return False
        assert part.intent_at is not None
        seen = await find(provider, part.tag, since=part.intent_at - CLOCKS_APART_SECONDS)
        if seen is None:
            return False
        await self._note(held, part, seen)
        log.info("part was handed in already", submission=held.id, part=part.tag, batch=seen.id)
        return True

    async def _turned_away(
        self, held: Submission, part: Part, error: ProviderRejected | ProviderRateLimited
    ) -> bool:
        if error.code == governor.TOKEN_LIMIT:
            now, rand = self._clock(), self._rand()
            await self._store.write(
                submitting.refuse, held, part, message=error.message, rand=rand, now=now
            )
            return False
        if isinstance(error, ProviderRateLimited):
            raise error
        log.warning("part rejected", submission=held.id, part=part.tag, error=error.message)
        await self._store.write(submitting.reject, held, part, trouble=error.message)
        return True


async def find(provider: Provider, tag: str, *, since: float) -> Snapshot | None:
    """The batch with this tag among those made since a time; pages come newest first."""
    cursor: str | None = None
    while True:
        page = await provider.list_page(cursor)
        for batch in page.batches:
            if (batch.metadata or {}).get(TAG) == tag:
                return batch
        cursor = page.next_cursor
        made = [batch.created_at for batch in page.batches if batch.created_at is not None]
        if cursor is None or (made and max(made) < since):
            return None
