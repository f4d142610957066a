"""An answer of the database, kept for a moment."""

from __future__ import annotations

import asyncio

import pytest

from batchbell.web.cache import Remembered

from ..conftest import Clock

pytestmark = pytest.mark.databases("sqlite")


class Source:
    """Answers 1, 2, 3, …, each time it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.started = asyncio.Event()

    async def __call__(self) -> int:
        self.asked += 1
        answer = self.asked
        self.started.set()
        await self.gate.wait()
        return answer


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def remembered(source: Source, clock: Clock) -> Remembered[int]:
    return Remembered(source, seconds=5.0, clock=clock)


async def test_it_is_asked_once_for_the_time(remembered: Remembered[int], clock: Clock) -> None:
    assert [await remembered.get(), await remembered.get()] == [1, 1]
    clock.advance(4.9)
    assert await remembered.get() == 1
    clock.advance(0.1)
    assert await remembered.get() == 2


async def test_what_is_at_hand_is_loaded_anew_before_its_time_is_over(
    remembered: Remembered[int], source: Source, clock: Clock
) -> None:
    assert remembered.at_hand() is None
    await remembered.get()
    clock.advance(2.5)
    assert (remembered.at_hand(), source.asked) == (1, 1)
    source.gate.clear()
    source.started.clear()
    clock.advance(0.1)
    assert [remembered.at_hand(), remembered.at_hand()] == [1, 1]
    await source.started.wait()
    clock.advance(2.5)
    assert remembered.at_hand() is None
    source.gate.set()
    assert await remembered.get() == 2
    assert (remembered.at_hand(), source.asked) == (2, 2)


async def test_a_clock_set_back_makes_nothing_last(
    remembered: Remembered[int], clock: Clock
) -> None:
    await remembered.get()
    clock.advance(-3600)
    assert await remembered.get() == 2


async def test_a_storm_asks_once(remembered: Remembered[int], source: Source) -> None:
    source.gate.clear()
    storm = [asyncio.create_task(remembered.get()) for _ in range(50)]
    await source.started.wait()
    source.gate.set()
    assert await asyncio.gather(*storm) == [1] * 50


async def test_what_was_asked_before_a_change_is_not_kept(
    remembered: Remembered[int], source: Source
) -> None:
    source.gate.clear()
    early = asyncio.create_task(remembered.get())
    await source.started.wait()
    remembered.forget()
    source.gate.set()
    assert await early == 1
    assert await remembered.get() == 2


async def test_a_failure_is_not_kept(clock: Clock) -> None:
    failing = True

    async def load() -> str:
        if failing:
            raise OSError("gone")
        return "back"

    remembered = Remembered(load, seconds=5.0, clock=clock)
    with pytest.raises(OSError, match="gone"):
        await remembered.get()
    failing = False
    assert await remembered.get() == "back"


async def test_who_stops_waiting_leaves_it_to_the_others(
    remembered: Remembered[int], source: Source
) -> None:
    source.gate.clear()
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await remembered.get()
    stays = asyncio.create_task(remembered.get())
    await asyncio.sleep(0)
    source.gate.set()
    assert await stays == 1, "it was loaded once"
