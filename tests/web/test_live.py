"""Live pages: made once for all who look at the same, and not at all when nobody does."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from batchbell.core.errors import NotFound, StoreUnavailable
from batchbell.storage.engine import Signal
from batchbell.web.dashboard.live import (
    REST_MOST_SECONDS,
    REST_SECONDS,
    Look,
    Looks,
    Sight,
    Viewer,
)
from batchbell.web.stream import Place

LONG_SECONDS = 20.0


@dataclass
class Somebody:
    """Looks at one page, which says how often it was made, and for whom."""

    looks: Looks
    token: str
    made: list[str] = field(default_factory=list)
    fails: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.place = Place("default", Signal())

    async def make(self) -> bytes:
        if self.fails:
            raise self.fails.pop(0)
        self.made.append(self.token)
        return f"{len(self.made)} for {self.token}".encode()

    @contextlib.contextmanager
    def looking(self, same: str = "page") -> Iterator[Look]:
        self.viewer = Viewer(self.place, self.make, self.token)
        with self.looks.joined(Sight(same, self.token), self.viewer) as look:
            yield look

    async def sees(self, look: Look) -> str:
        """The next page that is told of, and not from before this one began to look."""
        while True:
            assert await self.place.signal.wait(LONG_SECONDS)
            shown = look.shown_to(self.viewer)
            if shown is not None:
                data = shown.to(self.token).decode().splitlines()[1]
                return str(json.loads(data.removeprefix("data: ")))


async def test_a_page_is_made_once_for_all_and_each_gets_it_with_their_token() -> None:
    looks, made = Looks(), list[str]()
    one, other = Somebody(looks, "a" * 64, made), Somebody(looks, "b" * 64, made)
    with one.looking() as look, other.looking() as same:
        assert same is look
        assert await one.sees(look) == f"1 for {one.token}"
        assert await other.sees(look) == f"1 for {other.token}"
    assert made == [one.token]


async def test_whoever_comes_later_sees_nothing_from_before_at_once() -> None:
    looks, made = Looks(), list[str]()
    one, other = Somebody(looks, "a" * 64, made), Somebody(looks, "b" * 64, made)
    with one.looking() as look:
        await one.sees(look)
        with other.looking():
            assert look.shown_to(other.viewer) is None
            assert await other.sees(look) == f"2 for {other.token}"
            assert await one.sees(look) == f"2 for {one.token}"


async def test_nothing_is_made_when_nobody_looks() -> None:
    one = Somebody(Looks(), "a" * 64)
    with one.looking() as look:
        await one.sees(look)
    await asyncio.sleep(0)
    assert look.is_over
    with one.looking() as again:
        assert again is not look
        assert await one.sees(again) == f"2 for {one.token}"


async def test_a_page_goes_on_when_the_first_who_looked_has_gone() -> None:
    looks, made = Looks(), list[str]()
    people = [Somebody(looks, letter * 64, made) for letter in "abc"]
    with contextlib.ExitStack() as stack:
        with people[0].looking() as look:
            stack.enter_context(people[1].looking())
            await people[1].sees(look)
        stack.enter_context(people[2].looking())
        assert await people[2].sees(look) == f"2 for {people[2].token}"
    assert made == [people[0].token, people[1].token]


async def test_whoever_looks_hears_that_the_database_does_not_answer_until_it_does() -> None:
    one = Somebody(Looks(), "a" * 64)
    with one.looking() as look:
        await one.sees(look)
        one.fails.append(StoreUnavailable("gone"))
        with Somebody(one.looks, "b" * 64).looking(), pytest.raises(StoreUnavailable):
            await one.sees(look)
        with Somebody(one.looks, "c" * 64).looking():
            assert await one.sees(look) == f"2 for {one.token}"


async def test_a_page_that_is_gone_ends_for_all_who_look() -> None:
    looks = Looks()
    one, other = Somebody(looks, "a" * 64), Somebody(looks, "b" * 64)
    one.fails.append(NotFound("batch", "batch_1"))
    with one.looking() as look, other.looking():
        for somebody in (one, other):
            with pytest.raises(NotFound):
                await somebody.sees(look)
        with Somebody(looks, "c" * 64).looking() as later:
            assert later is not look, "it may be there again"


async def test_many_pages_rest_for_longer_and_none_for_ever() -> None:
    looks = Looks()
    with contextlib.ExitStack() as stack:
        for number in range(4):
            stack.enter_context(Somebody(looks, "a" * 64).looking(f"page {number % 2}"))
        assert looks.rest_seconds(0.001) == REST_SECONDS
        assert looks.rest_seconds(0.1) == pytest.approx(6.0)
        assert looks.rest_seconds(9.0) == REST_MOST_SECONDS
