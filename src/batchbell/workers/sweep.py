"""One sweep of an account: which calls to make, and what they found.

Lists pages while that is cheaper, then retrieves what no page showed. Where the provider lists
what has not ended alone, that list is read first: it is as long as there are open batches. What has
ended drops out of it, and is found in the list of all, or one by one. Where one of the two ways
fails the other is taken; only where both do, the account is at fault. A batch that a list does not
show is never taken for gone: only the API's own word about its id says so, and only while other
batches of the account are seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import zip_longest

from batchbell.core import polling
from batchbell.core.account import Verbs
from batchbell.core.errors import (
    MalformedBatch,
    ProviderAuthError,
    ProviderError,
    ProviderNotFound,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
)
from batchbell.core.lifecycle import BATCH_MOVES
from batchbell.core.model import ENDED, Doubtful, Missing, Sighting, Snapshot
from batchbell.core.results import lacks_files
from batchbell.providers.paging import Walk
from batchbell.providers.protocol import Page, Provider
from batchbell.storage.batches import Known, OpenBatch
from batchbell.workers.discovery import Discovery

RETRIEVES_AT_ONCE = 8
FAILURES_MAX = 2 * RETRIEVES_AT_ONCE
"""So many retrieves that fail in a row end the reading one by one, until the next sweep."""
LOST_AT_ONCE = 8
"""How many lost batches one sweep asks for."""


@dataclass(slots=True)
class Found:
    """What there is to write: sightings that differ, and batches not known."""

    sightings: list[Sighting] = field(default_factory=list)
    unknown: list[Snapshot] = field(default_factory=list)

    def add(self, more: Found) -> None:
        self.sightings += more.sightings
        self.unknown += more.unknown

    def __len__(self) -> int:
        return len(self.sightings) + len(self.unknown)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a sweep is to look."""

    last_pages: int | None = None
    use_list: bool = True
    """False while a list that fails is left alone."""
    check_list: bool = False
    """Whether to hold one row of the list against the batch itself."""
    verbs: Verbs = field(default_factory=Verbs)
    """As they were after the sweep before."""
    reads_max: int = 1_000
    """How many batches may be read one by one: the next sweep reads the others."""


@dataclass(slots=True)
class Memory:
    """What the sweeps of an account leave to the next one. Without it that one takes longer."""

    read_at: dict[str, float] = field(default_factory=dict)
    """When each open batch was last read by its id."""
    rows: dict[str, int] = field(default_factory=dict)
    """By the fingerprint of an open batch: the hash of the row that showed it last."""

    def forget_ended(self, open_batches: Sequence[OpenBatch]) -> None:
        """Keep only what is about batches as they are now, so that it does not grow."""
        read_at, rows = self.read_at, self.rows
        self.read_at = {b.id: read_at[b.id] for b in open_batches if b.id in read_at}
        prints = [b.fingerprint for b in open_batches if b.fingerprint is not None]
        self.rows = {one: rows[one] for one in prints if one in rows}

    def known_rows(self, open_batches: Iterable[OpenBatch]) -> dict[int, str]:
        """The ids of batches by the rows that say of them what is known already."""
        rows = self.rows
        prints = [(b.fingerprint, b.id) for b in open_batches if b.fingerprint is not None]
        return {rows[one]: id for one, id in prints if one in rows}


@dataclass(slots=True, eq=False)
class _Way:
    """A way through one list of the provider."""

    walk: Walk
    expected: int
    """In how many pages of it the open batches are, as far as can be known."""
    past_open: bool = False
    """Whether what is left of it was made before every open batch."""

    @property
    def over(self) -> bool:
        return self.walk.over or self.past_open


class Sweep:
    """See the module. `found()` may be run again after a rate limit: it goes on where it ended.

    The memory is kept up to date.
    """

    def __init__(
        self,
        provider: Provider,
        known: Known,
        plan: Plan,
        *,
        memory: Memory,
        now: float,
        discovery: Discovery | None = None,
    ) -> None:
        self.open = len(known.open)
        self.calls = Calls()
        self.discover_since = discovery.since if discovery else None
        self._discovery = discovery
        self._provider = provider
        self._plan = plan
        self._memory = memory
        self._now = now
        self._known = {batch.id: batch for batch in known.open}
        self._waiting = known.waiting
        self._lost = set(known.lost)
        self._lost_due = [id for id, due in known.lost.items() if due][:LOST_AT_ONCE]
        self._unseen = set(self._known)
        self._oldest = _oldest(known.open)
        expected = polling.pages_expected(
            len(known.open), plan.last_pages, page_size=provider.profile.page_size
        )
        self._all = _Way(Walk(provider), expected)
        self._ways = [self._all]
        if "status" in provider.profile.list_filters:
            self._ways.insert(0, _Way(Walk(provider, open_only=True), expected))
        self._rows: dict[str, Snapshot] = {}
        """Rows of the list that are held against what retrieves show."""
        self._compared = self._to_compare(known.open)
        self._known_rows = memory.known_rows(b for b in known.open if b.id not in self._compared)
        """What is to be compared has to be read."""
        self._bare: dict[str, Snapshot] = {}
        """Ends in the list that name no files: they are read by their id before they count."""
        self._found_bare: set[str] = set()
        """Those of them that nobody named: the list is all that we know them by."""
        self._bad_rows: dict[str, str] = {}
        self._some_seen = False
        self._missing: dict[str, Missing] = {}
        self._failed: dict[str, ProviderError] = {}
        self._answered = False
        self._list_error: str | None = None
        self._list_failure: ProviderError | None = None
        self._list_tried = False
        self._retrieve_error: str | None = None
        self._some_retrieved = False
        self._contradicted = False
        self._row_moved = False

    @property
    def pages_read(self) -> int:
        """Pages that came of the list that is read first; a call may fail."""
        return self._ways[0].walk.pages

    @property
    def list_failed(self) -> bool:
        return self._list_failure is not None

    @property
    def discovered_to(self) -> float | None:
        """Batches made before this are known by now, or not to be found; None without a list."""
        return self._discovery.reached if self._discovery and self._discovery.over else None

    @property
    def verbs(self) -> Verbs:
        """What is known of the ways to look, after this sweep."""
        before = self._plan.verbs
        retrieve_error = self._retrieve_error
        if retrieve_error is None and not self._some_retrieved:
            retrieve_error = before.retrieve_error
        agrees = self._row_moved and not self._contradicted
        return Verbs(
            list_error=self._list_error if self._list_tried else before.list_error,
            retrieve_error=retrieve_error,
            list_stale=self._contradicted or (before.list_stale and not agrees),
        )

    async def found(self) -> AsyncIterator[Found]:
        """What each answer brought, as it comes. Raises ProviderError where the sweep must end."""
        self._answered, self._list_failure, self._failed = False, None, {}
        while self._plan.use_list and (way := self._wanted()) is not None:
            yield await self._next_page(way)
        async for found in self._retrieved():
            yield found
        while self._failed and self._may_list() and (way := self._left()) is not None:
            yield await self._next_page(way)
        self._raise_if_nothing_answers()
        yield self._doubts()
        while self._missing and not self._some_seen and (way := self._left()) is not None:
            yield await self._next_page(way)
        yield self._unread()
        yield self._gone()

    # The list --------------------------------------------------------------------------------

    def _wanted(self) -> _Way | None:
        """The list of which a page is to be read now."""
        if self._list_failure is not None:
            return None
        if self._is_discovering():
            return None if self._all.walk.over else self._all
        mended = self._plan.verbs.list_error is not None and not self._list_tried
        way = next((way for way in self._ways if not way.over), None)
        return way if way is not None and (mended or self._should_list(way)) else None

    def _may_list(self) -> bool:
        return self._plan.use_list or not self._answered

    def _left(self) -> _Way | None:
        """The list that may show more of what retrieves do not; None where none may."""
        if self._list_failure is not None:
            return None
        unread = (way for way in self._ways if way.walk.pages < way.expected)
        return next((way for way in unread if not way.over), None)

    def _is_discovering(self) -> bool:
        return self._discovery is not None and not self._discovery.over

    def _should_list(self, way: _Way) -> bool:
        return polling.should_list(len(self._unseen), way.walk.pages, way.expected)

    async def _next_page(self, way: _Way) -> Found:
        """What the next page brings; nothing where the list fails. Raises ProviderRateLimited."""
        self.calls.pages += 1
        self._list_tried = True
        try:
            page = await way.walk.next_page({} if self._is_discovering() else self._known_rows)
        except ProviderRateLimited:
            raise
        except ProviderError as error:
            self._list_failure = error
            self._list_error = error.message
            self._discovery = None
            return Found()
        self._answered = True
        self._list_error = way.walk.stopped or page.fault
        times = [batch.created_at for batch in page.batches]
        way.past_open = not page.unchanged and polling.reached_oldest(times, self._oldest)
        found = self._sift(page)
        if self._discovery is not None and not self._discovery.over and way is self._all:
            found.unknown = self._whole(await self._discovery.sift(page))
            if way.walk.stopped and not self._discovery.over:
                self._discovery = None
        return found

    def _sift(self, page: Page) -> Found:
        found = Found()
        for batch, row_hash in zip_longest(page.batches, page.hashes):
            self._some_seen = True
            if batch.id in self._lost:
                self._lost.discard(batch.id)
                if not self._holds_back(batch):
                    found.sightings.append(batch)
            elif batch.id in self._unseen:
                self._unseen.discard(batch.id)
                if batch.id in self._compared:
                    self._rows[batch.id] = batch
                self._note_row(found, batch, row_hash)
        self._some_seen |= bool(page.unchanged)
        self._unseen.difference_update(page.unchanged)
        for row in page.malformed:
            if row.id in self._unseen:
                self._bad_rows[row.id] = row.reason
        return found

    def _note_row(self, found: Found, row: Snapshot, row_hash: int | None) -> None:
        """Of a stale list only news count: else it would undo what retrieves have shown."""
        known = self._known[row.id]
        ahead = row.status in BATCH_MOVES[known.status]
        self._row_moved |= known.seen and ahead
        if known.seen and self._plan.verbs.list_stale and not ahead:
            return
        if not self._holds_back(row):
            self._note(found, row, row_hash)

    def _holds_back(self, row: Snapshot) -> bool:
        """Keep an end without files until it is read by its id; not where that has failed."""
        if not lacks_files(row) or row.id in self._missing or row.id in self._failed:
            return False
        self._bare[row.id] = row
        return True

    def _whole(self, rows: Sequence[Snapshot]) -> list[Snapshot]:
        """Those of unknown batches that need not be read by their id."""
        bare = {row.id for row in rows if self._holds_back(row)}
        self._found_bare |= bare
        return [row for row in rows if row.id not in bare]

    # One by one ------------------------------------------------------------------------------

    def _to_compare(self, open_batches: Sequence[OpenBatch]) -> set[str]:
        """Batches to be read by their id though the list shows them, the longest unread first."""
        most = self._plan.reads_max if self._plan.verbs.list_stale else int(self._plan.check_list)
        silent = nsmallest(
            most, open_batches, key=lambda b: (self._last_read(b.id), b.updated_at, b.id)
        )
        return {batch.id for batch in silent}

    def _last_read(self, id: str) -> float:
        return self._memory.read_at.get(id, 0.0)

    async def _retrieved(self) -> AsyncIterator[Found]:
        """Ends early where everything fails. Raises ProviderRateLimited."""
        others = (self._unseen | set(self._rows)) - set(self._bare)
        order = [*self._bare, *sorted(others, key=lambda id: (self._last_read(id), id))]
        lost_due = [id for id in self._lost_due if id not in self._bare]
        waiting = [*order[: max(0, self._plan.reads_max - len(lost_due))], *lost_due]
        in_a_row = 0
        while waiting and in_a_row < FAILURES_MAX and (self._answered or not in_a_row):
            # Where nothing has answered yet, one call is enough to see that nothing does.
            part = [waiting.pop(0) for _ in range(min(self._at_once(), len(waiting)))]
            answers = await asyncio.gather(*(self._retrieve(id) for id in part))
            found = Found()
            limits = [self._take(found, id, answer) for id, answer in answers]
            failed = [id for id in part if id in self._failed]
            in_a_row = in_a_row + len(failed) if len(failed) == len(part) else 0
            yield found
            for limit in limits:
                if limit is not None:
                    raise limit

    def _at_once(self) -> int:
        return RETRIEVES_AT_ONCE if self._answered else 1

    async def _retrieve(self, id: str) -> tuple[str, Snapshot | ProviderError]:
        self.calls.retrieves += 1
        self._memory.read_at[id] = self._now
        try:
            return id, await self._provider.retrieve(id)
        except ProviderError as error:
            return id, error

    def _take(
        self, found: Found, id: str, answer: Snapshot | ProviderError
    ) -> ProviderRateLimited | None:
        """Note one answer; returns what must end the sweep."""
        match answer:
            case ProviderRateLimited():
                return answer
            case Snapshot():
                self._see(found, id, answer)
            case _ if id in self._bare:
                self._accept_bare(found, id, answer)
            case ProviderNotFound():
                self._miss(found, Missing(id, answer.message))
            case MalformedBatch():
                self._some_seen = True
                self._doubt(found, Doubtful(id, answer.message, there=True))
            case ProviderRejected() if id not in self._known:
                self._doubt(found, Doubtful(id, answer.message))
            case ProviderRejected():
                self._answered = True
                self._failed[id] = answer
            case _ if id not in self._lost_due:
                self._failed[id] = answer
        return None

    def _see(self, found: Found, id: str, seen: Snapshot) -> None:
        self._answered = self._some_seen = self._some_retrieved = True
        self._unseen.discard(id)
        row, bare = self._rows.pop(id, None), self._bare.pop(id, None)
        self._contradicted |= row is not None and polling.is_behind(row, seen)
        ahead = bare is not None and polling.is_behind(seen, bare)
        self._accept(found, bare if bare is not None and ahead else seen)

    def _accept(self, found: Found, seen: Snapshot) -> None:
        if seen.id in self._known:
            self._note(found, seen)
        elif seen.id in self._found_bare:
            self._found_bare.discard(seen.id)
            found.unknown.append(seen)
        else:
            found.sightings.append(seen)

    def _accept_bare(self, found: Found, id: str, error: ProviderError) -> None:
        """Take the row for it; where retrieves worked until now, the next sweep tries once more."""
        row = self._bare.pop(id)
        self._rows.pop(id, None)
        if not isinstance(error, ProviderNotFound | ProviderRejected | MalformedBatch):
            self._failed[id] = error
            if id in self._known and self._plan.verbs.retrieve_error is None:
                return
        self._accept(found, row)

    def _miss(self, found: Found, missing: Missing) -> None:
        self._answered = self._some_retrieved = True
        if missing.id not in self._known:
            found.sightings.append(missing)
        elif missing.id not in self._rows or self._plan.verbs.list_stale:
            self._missing[missing.id] = missing

    def _doubt(self, found: Found, doubt: Doubtful) -> None:
        self._answered = True
        if doubt.id not in self._rows:
            found.sightings.append(doubt)
        self._unseen.discard(doubt.id)

    def _note(self, found: Found, seen: Snapshot, row_hash: int | None = None) -> None:
        """Have it written where it is not as it is known, and remember its row, if it was one.

        What is written is what the row said, or the row is read at the next look. What has another
        status needs no fingerprint to be written, and none of what has ended is looked at again.
        """
        known = self._known[seen.id]
        moved = seen.status not in (None, known.status)
        if moved and (row_hash is None or seen.status in ENDED):
            found.sightings.append(seen)
            return
        fingerprint = seen.fingerprint
        if moved or fingerprint != known.fingerprint:
            found.sightings.append(seen)
        if row_hash is not None:
            self._memory.rows[fingerprint] = row_hash

    # What it comes to ------------------------------------------------------------------------

    def _raise_if_nothing_answers(self) -> None:
        failures = [self._list_failure, *self._failed.values()]
        error = next((failure for failure in failures if failure is not None), None)
        if error is not None and not self._answered and not self._fails_idly(error):
            raise error

    def _fails_idly(self, error: ProviderError) -> bool:
        """Whether only the list fails, as it did before, and nobody needs it now."""
        idle = not self._known and self.discover_since is None
        failed_before = self._plan.verbs.list_error is not None
        return idle and failed_before and not isinstance(error, ProviderAuthError)

    def _doubts(self) -> Found:
        """What could not be read though other calls are answered."""
        failed = {id: error.message for id, error in self._failed.items() if id in self._unseen}
        broken = [e for e in self._failed.values() if not isinstance(e, ProviderRejected)]
        if broken:
            self._retrieve_error = broken[0].message
        bad = {id: reason for id, reason in self._bad_rows.items() if id in failed}
        return Found(
            [Doubtful(id, bad.get(id, why), there=id in bad) for id, why in failed.items()]
        )

    def _gone(self) -> Found:
        """Batches that the API has nothing of. Where it has none at all, the account is at fault.

        Raises ProviderUnavailable.
        """
        gone = list(self._missing.values())
        watched = self.open + self._waiting
        if gone and not self._some_seen and watched > 1:
            raise ProviderUnavailable(
                f"The provider shows none of the {watched} batches that are watched here: are"
                f" account, API key and base URL the right ones? It says: {gone[0].reason}"
            )
        return Found(list(gone))

    def _unread(self) -> Found:
        """Unknown batches that the budget did not reach. Known ones wait for the next sweep."""
        found = Found()
        for id in self._found_bare & set(self._bare):
            self._accept(found, self._bare.pop(id))
        return found


def _oldest(open_batches: Sequence[OpenBatch]) -> float | None:
    """When the oldest open batch was made; None while one of them was never seen."""
    times = [batch.created_at for batch in open_batches]
    return None if None in times else min((t for t in times if t is not None), default=None)
