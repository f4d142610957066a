"""A walk through an account's list of batches that ends, whatever the list answers.

Lists of real hosts repeat a page, hand out a cursor a second time, send empty pages with
`has_more`, or never end. A walk that stopped early is not `whole`: what it did not show proves
nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from batchbell.providers.protocol import Page

PAGES_MAX = 2_000
BARREN_MAX = 3
"""Pages in a row that show no batch for the first time. Cursors that shift may repeat one."""


class Lists(Protocol):
    """What has a list of batches, such as a `Provider`."""

    async def list_page(
        self,
        cursor: str | None = None,
        *,
        open_only: bool = False,
        known: Mapping[int, str] | None = None,
    ) -> Page:
        """As `Provider.list_page`."""
        ...


class Walk:
    """Reads one page after the other: `async for page in Walk(provider)`, or `next_page()`.

    A call that fails raises ProviderError, and may be made again: the walk goes on at that page.
    """

    def __init__(
        self, lists: Lists, *, pages_max: int = PAGES_MAX, open_only: bool = False
    ) -> None:
        self.pages = 0
        """Pages that came."""
        self.over = False
        """No page is left to be read."""
        self.stopped: str | None = None
        """Why the walk ended before the list did; None where it did not."""
        self._lists = lists
        self._pages_max = pages_max
        self._open_only = open_only
        self._cursor: str | None = None
        self._cursors: set[str] = set()
        self._shown: set[int] = set()
        self._barren = 0

    @property
    def whole(self) -> bool:
        """Whether every page was read, up to the end of the list."""
        return self.over and self.stopped is None

    async def next_page(self, known: Mapping[int, str] | None = None) -> Page:
        """The next page; `known` as for `Provider.list_page`.

        Raises ProviderError; StopAsyncIteration where none is left.
        """
        if self.over:
            raise StopAsyncIteration
        page = await self._lists.list_page(self._cursor, open_only=self._open_only, known=known)
        self.pages += 1
        self._note_rows(page)
        self._advance(page.next_cursor)
        return page

    async def __aiter__(self) -> AsyncIterator[Page]:
        while not self.over:
            yield await self.next_page()

    def _note_rows(self, page: Page) -> None:
        ids = [*(batch.id for batch in page.batches), *page.unchanged]
        ids += [row.id for row in page.malformed if row.id]
        # Hashes, because ids may be long. A collision costs at most the count of one page.
        fresh = {hash(id) for id in ids} - self._shown
        self._shown |= fresh
        self._barren = 0 if fresh else self._barren + 1

    def _advance(self, cursor: str | None) -> None:
        if cursor is None:
            self.over = True
            return
        self.stopped = self._fault(cursor)
        self.over = self.stopped is not None
        self._cursors.add(cursor)
        self._cursor = cursor

    def _fault(self, cursor: str) -> str | None:
        if cursor in self._cursors:
            return "The list leads back to a page that was read already."
        if self._barren >= BARREN_MAX:
            return f"{BARREN_MAX} pages of the list in a row showed nothing new."
        if self.pages >= self._pages_max:
            return f"The list did not end within {self._pages_max} pages."
        return None
