"""The loop: steps, rests, survives and stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.conftest import Clock

from batchbell.core.errors import StoreUnavailable
from batchbell.observability import Metrics
from batchbell.storage.engine import Signal
from batchbell.workers.loop import ALIVE_SECONDS, Loop, Loops


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


class Rests:
    """A signal that notes for how long it was waited for, and stops the loop after `most`."""

    def __init__(self, most: int) -> None:
        self.waits: list[float] = []
        self.most = most
        self.over = asyncio.Event()

    def set(self) -> None:
        self.over.set()

    async def wait(self, timeout_seconds: float) -> bool:
        self.waits.append(timeout_seconds)
        if len(self.waits) >= self.most:
            self.over.set()
            await asyncio.sleep(0)
        return False


class Hurried(Scripted):
    """It says that something is due, and finds nothing; `idle` raises what it is given."""

    def __init__(self, idle: float | Exception, most: int = 6) -> None:
        super().__init__()
        self.signal = Rests(most)  # type: ignore[assignment]
        self.steps = 0
        self._idle = idle

    async def step(self) -> bool:
        self.steps += 1
        return False

    async def idle_seconds(self) -> float:
        if isinstance(self._idle, Exception):
            raise self._idle
        return self._idle


async def test_a_worker_that_finds_nothing_though_it_is_due_rests_longer_and_longer(
    clock: Clock,
) -> None:
    worker = Hurried(0.05)
    loop = Loop(worker, clock=clock, rand=lambda: 0.0, metrics=Metrics())
    task = asyncio.create_task(loop.run())
    await asyncio.wait_for(worker.signal.over.wait(), 5)  # type: ignore[attr-defined]
    loop.stop()
    await task
    waits = worker.signal.waits[:6]  # type: ignore[attr-defined]
    assert waits == [0.1, 0.2, 0.4, 0.5, 0.5, 0.5]


async def test_a_worker_that_asks_for_a_proper_rest_gets_that(clock: Clock) -> None:
    worker = Hurried(0.1, most=3)
    loop = Loop(worker, clock=clock, rand=lambda: 0.0, metrics=Metrics())
    task = asyncio.create_task(loop.run())
    await asyncio.wait_for(worker.signal.over.wait(), 5)  # type: ignore[attr-defined]
    loop.stop()
    await task
    assert worker.signal.waits[:3] == [0.1] * 3  # type: ignore[attr-defined]


async def test_a_store_that_is_down_when_the_worker_rests_is_a_failure_and_no_hot_loop(
    clock: Clock, monkeypatch
) -> None:
    paused: list[float] = []

    def wait(failures: int, **limits: float) -> float:
        paused.append(failures)
        if len(paused) == 4:
            loop.stop()
        return 0.0

    monkeypatch.setattr("batchbell.workers.loop.backoff.exponential", wait)
    worker, metrics = Hurried(StoreUnavailable("gone")), Metrics()
    loop = Loop(worker, clock=clock, rand=lambda: 0.0, metrics=metrics)
    await asyncio.wait_for(loop.run(), 5)
    assert paused == [1, 2, 3, 4], "each pause is longer than the one before"
    assert worker.steps == 4, "one step for each pause"
    failures = {"worker": "scripted"}
    assert metrics.registry.get_sample_value("batchbell_worker_failures_total", failures) == 4


async def test_a_step_that_hangs_shows(clock: Clock) -> None:
    class Hanging(Scripted):
        progress_at = 0.0
        begun = asyncio.Event()

        async def step(self) -> bool:
            self.begun.set()
            await asyncio.Event().wait()
            return True

    def silent() -> float | None:
        labels = {"worker": "scripted"}
        return metrics.registry.get_sample_value("batchbell_worker_silent_seconds", labels)

    worker, metrics = Hanging(), Metrics()
    loops = Loops([Loop(worker, clock=clock, rand=lambda: 0.0, metrics=metrics)])
    await asyncio.wait_for(worker.begun.wait(), 5)
    clock.advance(ALIVE_SECONDS)
    assert loops.alive() == {"scripted": False}
    assert silent() == ALIVE_SECONDS
    worker.progress_at = clock()
    assert loops.alive() == {"scripted": True}, "it got on with its long step"
    assert silent() == 0.0
    loops.stop()
    await loops.ended(within_seconds=0.01)


def loops_of(worker: Scripted, clock: Clock) -> Loops:
    return Loops([Loop(worker, clock=clock, rand=lambda: 0.0, metrics=Metrics())])


async def test_a_crew_cuts_off_what_does_not_end_in_time(clock: Clock) -> None:
    class Stuck(Scripted):
        async def close(self) -> None:
            await asyncio.Event().wait()

    worker = Stuck()
    loops = loops_of(worker, clock)
    await asyncio.wait_for(worker.done.wait(), 5)
    loops.stop()
    await asyncio.wait_for(loops.ended(within_seconds=0.05), 5)


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
    loops = loops_of(worker, clock)
    async with asyncio.timeout(5):
        await worker.died.wait()
        await worker.done.wait()
    loops.stop()
    await loops.ended(within_seconds=5)
    assert worker.closed
