"""One sweep of an account: which calls to make, and what they found.

Lists pages while that is cheaper, then retrieves what no page showed. A batch that a list does
not show is never taken for gone: only a 404 of its own says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field

from batchbell.core import pacing
from batchbell.core.errors import (
    MalformedBatch,
    ProviderError,
    ProviderNotFound,
    ProviderRejected,
)
from batchbell.core.model import Missing, Sighting, Snapshot
from batchbell.providers.protocol import Page, Provider
from batchbell.storage.batches import OpenBatch
from batchbell.workers.discovery import Discovery

RETRIEVES_AT_ONCE = 8


@dataclass(slots=True)
class Found:
    """What there is to write: sightings that differ, batches not known, and rows without sense."""

    sightings: list[Sighting] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    unknown: list[Snapshot] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sightings) + len(self.reasons) + len(self.unknown)


@dataclass(slots=True)
class Calls:
    """What the sweep has cost so far."""

    pages: int = 0
    retrieves: int = 0

    @property
    def total(self) -> int:
        return self.pages + self.retrieves

    def since(self, before: Calls) -> Calls:
        """What has been called after `before` was noted."""
        return Calls(self.pages - before.pages, self.retrieves - before.retrieves)


class Sweep:
    """See the module. `found()` may be run again after an error: it goes on where it ended."""

    def __init__(
        self,
        provider: Provider,
        open_batches: Sequence[OpenBatch],
        *,
        last_pages: int | None,
        discovery: Discovery | None = None,
    ) -> None:
        self.open = len(open_batches)
        self.calls = Calls()
        self.pages_read = 0
        """Pages that came; a call may fail."""
        self.discover_since = discovery.since if discovery else None
        self._discovery = discovery
        self._provider = provider
        self._fingerprints = {batch.id: batch.fingerprint for batch in open_batches}
        self._unseen = set(self._fingerprints)
        self._oldest = _oldest(open_batches)
        self._expected = pacing.pages_expected(len(open_batches), last_pages)
        self._cursor: str | None = None
        self._more = True
        self._past_open = False

    @property
    def discovered_to(self) -> float | None:
        """Batches made before this are known by now, or not to be found; None without a list."""
        return self._discovery.reached if self._discovery and self._discovery.over else None

    async def found(self) -> AsyncIterator[Found]:
        """What each answer brought, as it comes. Raises ProviderError where the sweep must end."""
        while self._more and (self._is_discovering() or self._should_list()):
            page = await self._next_page()
            found = self._sift(page)
            if self._discovery is not None and not self._discovery.over:
                found.unknown = await self._discovery.sift(page)
            yield found
        for part in batched(sorted(self._unseen), RETRIEVES_AT_ONCE):
            found = Found()
            errors = await asyncio.gather(*(self._retrieve(id, found) for id in part))
            yield found
            for error in errors:
                if error is not None:
                    raise error

    def _is_discovering(self) -> bool:
        return self._discovery is not None and not self._discovery.over

    def _should_list(self) -> bool:
        unseen = len(self._unseen)
        return not self._past_open and pacing.should_list(unseen, self.pages_read, self._expected)

    async def _next_page(self) -> Page:
        """The next page; an empty last one from a provider that has no list."""
        self.calls.pages += 1
        try:
            page = await self._provider.list_page(self._cursor)
        except (ProviderNotFound, ProviderRejected):
            page = Page(batches=())
            self._discovery = None
        self.pages_read += 1
        times = [batch.created_at for batch in page.batches]
        self._cursor = page.next_cursor
        self._more = self._cursor is not None
        self._past_open = pacing.reached_oldest(times, self._oldest)
        return page

    def _sift(self, page: Page) -> Found:
        found = Found()
        for batch in page.batches:
            if batch.id in self._unseen:
                self._unseen.discard(batch.id)
                self._note(found, batch)
        for row in page.malformed:
            if row.id in self._unseen:
                self._unseen.discard(row.id)
                found.reasons[row.id] = row.reason
        return found

    def _note(self, found: Found, batch: Snapshot) -> None:
        if batch.fingerprint() != self._fingerprints[batch.id]:
            found.sightings.append(batch)

    async def _retrieve(self, id: str, found: Found) -> ProviderError | None:
        self.calls.retrieves += 1
        try:
            self._note(found, await self._provider.retrieve(id))
        except ProviderNotFound:
            found.sightings.append(Missing(id))
        except (MalformedBatch, ProviderRejected) as error:
            found.reasons[id] = error.message
        except ProviderError as error:
            return error
        self._unseen.discard(id)
        return None


def batched(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The ids in parts of at most `size`."""
    return (ids[start : start + size] for start in range(0, len(ids), size))


def _oldest(open_batches: Sequence[OpenBatch]) -> float | None:
    """When the oldest open batch was made; None while one of them was never seen."""
    times = [batch.created_at for batch in open_batches]
    return None if None in times else min((t for t in times if t is not None), default=None)
