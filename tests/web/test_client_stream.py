"""`client.stream` and `client.trigger`, blocking and awaited, and what a stream makes of lines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from batchbell.client import (
    AccessRefused,
    ApiError,
    AsyncBatchbell,
    Batchbell,
    ServerUnreachable,
)
from batchbell.client.streaming import LAST_PAUSE_SECONDS, Following
from batchbell.core.ids import first_id
from batchbell.web.app import end_streams

from .making import Served

pytestmark = pytest.mark.databases("sqlite")


async def test_a_stream_brings_each_event_with_its_body(served: Served) -> None:
    opened = asyncio.Event()
    async with (
        AsyncBatchbell(served.url) as bell,
        contextlib.aclosing(bell.stream(types=["batch.failed"], on_open=opened.set)) as events,
    ):
        coming = asyncio.ensure_future(anext(events))
        await opened.wait()
        await bell.trigger()
        made = await bell.trigger("batch.failed")
        event = await coming
    assert (event.type, event.data["status"]) == ("batch.failed", "failed")
    assert event.id == made.id
    assert event.body.startswith(f'{{"id":"{event.id}",')


async def test_a_stream_that_the_server_ends_goes_on_without_a_gap_or_a_twin(
    served: Served,
) -> None:
    lost: list[str] = []

    def note(error: Exception, _pause: float) -> None:
        lost.append(str(error))
        served.app.state.surface.streams.ended = False

    async with (
        AsyncBatchbell(served.url) as bell,
        contextlib.aclosing(bell.stream(after=first_id("evt", at=0), on_lost=note)) as events,
    ):
        first = await bell.trigger()
        assert (await anext(events)).id == first.id
        coming = asyncio.ensure_future(anext(events))
        end_streams(served.app)
        second = await bell.trigger()
        assert (await coming).id == second.id
    assert lost == [f"{served.url} ended the stream."]


async def test_the_blocking_client_streams_too(served: Served) -> None:
    def use() -> tuple[str, str]:
        with Batchbell(served.url) as bell:
            made = bell.trigger("batch.expired")
            with contextlib.closing(bell.stream(after=first_id("evt", at=0))) as events:
                return made.id, next(events).id

    made, came = await asyncio.to_thread(use)
    assert made == came


async def test_what_cannot_be_mended_by_waiting_is_raised(served: Served) -> None:
    async with AsyncBatchbell(served.url) as bell:
        with pytest.raises(ApiError, match="no event type"):
            await anext(bell.stream(types=["batch.done"]))
        await bell.create_key("one")
        with pytest.raises(AccessRefused):
            await anext(bell.stream())


def lines(id: str, data: str = "{}") -> Iterator[str]:
    yield from (f"id: {id}", "event: batch.completed", f"data: {data}", "")


def a_following(after: str | None = None) -> Following:
    return Following(after=after, types=None, on_open=None, on_lost=None)


def test_an_event_that_comes_again_is_left_out() -> None:
    following, one, two = a_following(), first_id("evt", at=100), first_id("evt", at=101)
    came = [following.take(line) for id in (two, one, two, one) for line in lines(id)]
    assert [event.id for event in came if event] == [two, one]
    assert following.query == {"after": two}, "where to go on is the newest"


def test_signs_of_life_and_half_a_frame_are_no_events() -> None:
    following, id = a_following(), first_id("evt", at=100)
    assert [following.take(line) for line in (": heartbeat", "", *list(lines(id))[:3])] == [
        None
    ] * 5
    following.opened()
    assert following.take("") is None
    assert following.query == {}


def test_an_empty_stream_goes_on_where_the_server_said() -> None:
    following, place = a_following(), first_id("evt", at=100)
    following.take(f"id: {place}")
    assert following.take("") is None
    assert following.query == {"after": place}


def test_pauses_grow_until_the_server_speaks_again() -> None:
    following, gone = a_following(), ServerUnreachable("gone")
    with pytest.raises(ServerUnreachable):
        following.lost(gone, rand=1.0)
    following.opened()
    pauses = [following.lost(gone, rand=1.0) for _ in range(8)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.5, LAST_PAUSE_SECONDS)
    assert following.lost(gone, rand=0.0) == LAST_PAUSE_SECONDS / 2
    for line in lines(first_id("evt", at=1)):
        following.take(line)
    assert following.lost(gone, rand=1.0) == 0.5
