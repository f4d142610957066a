"""The loop: steps, rests, survives and stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.conftest import Clock

from batchbell.core.errors import StoreUnavailable
from batchbell.observability import Metrics
from batchbell.storage.engine import Signal
from batchbell.workers.loop import ALIVE_SECONDS, Crew, Loop


class Scripted:
    """A worker whose steps are given."""

    name = "scripted"

    def __init__(self, *steps: Callable[[], bool]) -> None:
        self.signal = Signal()
        self.done = asyncio.Event()
        self.closed = False
        self.rests = 0
        self._steps = list(steps)

    async def step(self) -> bool:
        if self._steps:
            return self._steps.pop(0)()
        self.done.set()
        return False

    async def idle_seconds(self) -> float:
        self.rests += 1
        return 60.0

    async def close(self) -> None:
        self.closed = True


def fails(error: Exception) -> Callable[[], bool]:
    def step() -> bool:
        raise error

    return step


async def run(worker: Scripted, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Metrics:
    monkeypatch.setattr("batchbell.workers.loop.FIRST_PAUSE_SECONDS", 0.0)
    metrics = Metrics()
    loop = Loop(worker, clock=clock, rand=lambda: 0.0, metrics=metrics)
    task = asyncio.create_task(loop.run())
    await asyncio.wait_for(worker.done.wait(), 5)
    assert loop.alive()
    clock.advance(ALIVE_SECONDS + 1)
    assert not loop.alive()
    loop.stop()
    await asyncio.wait_for(task, 5)
    assert worker.closed
    return metrics


async def test_it_steps_until_there_is_nothing_to_do_and_closes(clock: Clock, monkeypatch) -> None:
    worker = Scripted(lambda: True, lambda: True)
    await run(worker, clock, monkeypatch)
    assert worker.rests <= 1


@pytest.mark.parametrize("error", [StoreUnavailable("gone"), ValueError("a bug"), OSError()])
async def test_a_step_that_raises_is_counted_and_tried_again(
    clock: Clock, monkeypatch, error: Exception
) -> None:
    worker = Scripted(fails(error), fails(error), lambda: True)
    metrics = await run(worker, clock, monkeypatch)
    failures = {"worker": "scripted"}
    assert metrics.registry.get_sample_value("batchbell_worker_failures_total", failures) == 2


async def test_a_signal_ends_the_rest(clock: Clock, monkeypatch) -> None:
    woken = asyncio.Event()

    class Waiting(Scripted):
        async def step(self) -> bool:
            if self.rests:
                woken.set()
            return await super().step()

    worker = Waiting()
    loop = Loop(worker, clock=clock, rand=lambda: 0.0, metrics=Metrics())
    task = asyncio.create_task(loop.run())
    await asyncio.wait_for(worker.done.wait(), 5)
    worker.signal.set()
    await asyncio.wait_for(woken.wait(), 5)
    loop.stop()
    await task


def crew_of(worker: Scripted, clock: Clock) -> Crew:
    return Crew([Loop(worker, clock=clock, rand=lambda: 0.0, metrics=Metrics())])


async def test_a_crew_cuts_off_what_does_not_end_in_time(clock: Clock) -> None:
    class Stuck(Scripted):
        async def close(self) -> None:
            await asyncio.Event().wait()

    worker = Stuck()
    crew = crew_of(worker, clock)
    await asyncio.wait_for(worker.done.wait(), 5)
    crew.stop()
    await asyncio.wait_for(crew.ended(within_seconds=0.05), 5)


async def test_a_loop_that_dies_is_started_again(clock: Clock, monkeypatch) -> None:
    monkeypatch.setattr("batchbell.workers.loop.FIRST_PAUSE_SECONDS", 0.0)

    class Dying(Scripted):
        died = asyncio.Event()

        async def idle_seconds(self) -> float:
            if not self.died.is_set():
                self.died.set()
                self.done.clear()
                raise RuntimeError("died outside a step")
            return 60.0

    worker = Dying()
    crew = crew_of(worker, clock)
    async with asyncio.timeout(5):
        await worker.died.wait()
        await worker.done.wait()
    crew.stop()
    await crew.ended(within_seconds=5)
    assert worker.closed
