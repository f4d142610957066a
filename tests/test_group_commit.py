"""Writing together what waits together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from batchbell.group_commit import Gathering, GroupCommit


class Pen:
    """Writes when it is let, and remembers what came together."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.free = asyncio.Event()
        self.free.set()
        self.started = asyncio.Event()

    async def write(self, items: list[int]) -> Sequence[int]:
        self.groups.append(items)
        self.started.set()
        await self.free.wait()
        if 13 in items:
            raise ValueError("unlucky")
        return [item * 2 for item in items]


@pytest.fixture
def pen() -> Pen:
    return Pen()


@pytest.fixture
def gathering(pen: Pen) -> GroupCommit[int, int]:
    return GroupCommit(pen.write, most=4)


async def test_alone_an_item_does_not_wait(pen: Pen, gathering: GroupCommit[int, int]) -> None:
    assert await gathering.add(1) == 2
    assert pen.groups == [[1]]


async def test_the_first_of_a_group_waits_some_rounds_for_others(pen: Pen) -> None:
    gathering = GroupCommit(pen.write, most=4, rounds=2)
    first = gathering.put(1)
    await asyncio.sleep(0)
    second = gathering.put(2)
    assert await asyncio.gather(first, second) == [2, 4]
    assert pen.groups == [[1, 2]]
    assert await gathering.add(3) == 6
    assert pen.groups == [[1, 2], [3]]


async def test_what_comes_during_a_write_shares_the_next_ones(
    pen: Pen, gathering: GroupCommit[int, int]
) -> None:
    pen.free.clear()
    first = gathering.put(0)
    await pen.started.wait()
    rest = [gathering.put(n) for n in range(1, 8)]
    pen.free.set()

    assert await asyncio.gather(first, *rest) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert pen.groups == [[0], [1, 2, 3, 4], [5, 6, 7]]


async def test_a_failure_is_told_to_each_of_its_group_and_to_no_other(
    pen: Pen, gathering: GroupCommit[int, int]
) -> None:
    items = [gathering.put(n) for n in (11, 12, 13, 14, 15)]
    answers = await asyncio.gather(*items, return_exceptions=True)
    assert [type(answer) for answer in answers] == [ValueError] * 4 + [int]
    assert await gathering.add(1) == 2


async def test_one_who_goes_away_harms_nobody(pen: Pen, gathering: GroupCommit[int, int]) -> None:
    pen.free.clear()
    leaver = asyncio.create_task(gathering.add(1))
    stayer = asyncio.create_task(gathering.add(2))
    await pen.started.wait()
    leaver.cancel()
    pen.free.set()
    assert await stayer == 4
    with pytest.raises(asyncio.CancelledError):
        await leaver
    assert await gathering.add(3) == 6


async def test_drain_returns_when_all_is_written(
    pen: Pen, gathering: GroupCommit[int, int]
) -> None:
    items = [gathering.put(n) for n in (1, 2, 3, 13, 5)]
    await gathering.drain()
    assert all(item.done() for item in items)
    assert [item.exception() is None for item in items] == [False] * 4 + [True]
    await gathering.drain()


async def test_too_few_answers_are_a_failure_for_all() -> None:
    async def forgetful(items: list[int]) -> Sequence[int]:
        return items[1:]

    gathering: GroupCommit[int, int] = GroupCommit(forgetful, most=9)
    answers = await asyncio.gather(gathering.put(1), gathering.put(2), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ValueError] * 2


async def test_a_writer_that_is_stopped_leaves_nobody_waiting(
    pen: Pen, gathering: GroupCommit[int, int]
) -> None:
    pen.free.clear()
    items = [gathering.put(n) for n in range(9)]
    await pen.started.wait()
    (writer,) = [t for t in asyncio.all_tasks() if t.get_name() == "batchbell-gathering"]
    writer.cancel()
    await asyncio.wait(items)
    assert all(item.cancelled() for item in items)
    pen.free.set()
    assert await gathering.add(1) == 2


async def test_what_is_gathered_and_not_asked_for_is_written_in_groups_too(pen: Pen) -> None:
    async def write(items: list[int]) -> None:
        await pen.write(items)

    gathering: Gathering[int] = Gathering(write, most=4)
    pen.free.clear()
    gathering.put(0)
    await pen.started.wait()
    for n in range(1, 8):
        gathering.put(n)
    pen.free.set()
    await gathering.drain()
    assert pen.groups == [[0], [1, 2, 3, 4], [5, 6, 7]]


async def test_a_write_that_fails_keeps_nothing_that_comes_after_from_being_written(
    pen: Pen,
) -> None:
    async def write(items: list[int]) -> None:
        await pen.write(items)

    gathering: Gathering[int] = Gathering(write, most=1)
    for n in (13, 1):
        gathering.put(n)
    with pytest.raises(ValueError, match="unlucky"):
        await gathering._writer  # type: ignore[misc]
    gathering.put(2)
    await gathering.drain()
    assert pen.groups == [[13], [1], [2]]
