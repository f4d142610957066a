"""A walk through a list ends, whatever the list answers, and says whether it was whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from batchbell.core.errors import ProviderUnavailable
from batchbell.core.model import Snapshot, Status
from batchbell.providers.paging import BARREN_MAX, PAGES_MAX, Walk
from batchbell.providers.protocol import Malformed, Page


def page(*ids: str, then: str | None = None) -> Page:
    rows = [Snapshot(id=id, provider_status="x", status=Status.IN_PROGRESS) for id in ids]
    return Page(batches=tuple(rows), next_cursor=then)


@dataclass
class Listing:
    """Answers by number of the call and cursor."""

    answer: Callable[[int, str | None], Page]
    asked: list[str | None] = field(default_factory=list)

    async def list_page(
        self,
        cursor: str | None = None,
        *,
        open_only: bool = False,
        known: Mapping[int, str] | None = None,
    ) -> Page:
        self.asked.append(cursor)
        return self.answer(len(self.asked), cursor)


async def ids_of(walk: Walk) -> list[str]:
    return [batch.id async for one in walk for batch in one.batches]


async def test_a_good_list_is_read_to_its_end() -> None:
    pages = [page("a", "b", then="b"), page("c", then="c"), page("d")]
    listing = Listing(lambda n, _: pages[n - 1])
    walk = Walk(listing)
    assert await ids_of(walk) == ["a", "b", "c", "d"]
    assert listing.asked == [None, "b", "c"]
    assert (walk.pages, walk.over, walk.whole, walk.stopped) == (3, True, True, None)


@pytest.mark.parametrize(
    ("answer", "calls", "why"),
    [
        (lambda n, _: page("a", then="a"), 2, "read already"),
        (lambda n, _: page(f"x{n}", then="ab"[n % 2]), 3, "read already"),
        (lambda n, _: page("a", then=f"c{n}"), 1 + BARREN_MAX, "nothing new"),
        (lambda n, _: page(then=f"c{n}"), BARREN_MAX, "nothing new"),
        (lambda n, _: page(f"x{n}", then=f"c{n}"), PAGES_MAX, "did not end"),
    ],
    ids=["same cursor", "two cursors in turn", "same page", "empty pages", "endless"],
)
async def test_a_list_without_end_is_left(
    answer: Callable[[int, str | None], Page], calls: int, why: str
) -> None:
    listing = Listing(answer)
    walk = Walk(listing)
    await ids_of(walk)
    assert len(listing.asked) == calls
    assert walk.over
    assert not walk.whole
    assert why in (walk.stopped or "")


async def test_a_page_that_repeats_rows_is_no_end() -> None:
    """Cursors shift while batches are made: a page may show again what the one before showed."""
    pages = [page("a", "b", then="b"), page("a", "b", then="c"), page(then="d"), page("e")]
    assert await ids_of(Walk(Listing(lambda n, _: pages[n - 1]))) == ["a", "b", "a", "b", "e"]


async def test_rows_without_sense_count_as_shown() -> None:
    bad = tuple(Malformed(f"m{n}", "odd") for n in range(2))
    pages = [*(Page(batches=(), malformed=(one,), next_cursor=one.id) for one in bad), page("a")]
    walk = Walk(Listing(lambda n, _: pages[n - 1]))
    assert await ids_of(walk) == ["a"]
    assert walk.whole


async def test_a_call_that_fails_is_made_again_at_the_same_page() -> None:
    def answer(n: int, cursor: str | None) -> Page:
        if n == 2:
            raise ProviderUnavailable("503")
        return page("a", then="a") if cursor is None else page("b")

    listing = Listing(answer)
    walk = Walk(listing)
    assert [b.id for b in (await walk.next_page()).batches] == ["a"]
    with pytest.raises(ProviderUnavailable):
        await walk.next_page()
    assert [b.id for b in (await walk.next_page()).batches] == ["b"]
    assert listing.asked == [None, "a", "a"]
    assert walk.whole
    with pytest.raises(StopAsyncIteration):
        await walk.next_page()
