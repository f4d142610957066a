"""The one loop that every worker runs in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol, runtime_checkable

import structlog

from batchbell.core import backoff
from batchbell.core.errors import StoreUnavailable
from batchbell.observability import Metrics
from batchbell.storage.engine import Signal

log = structlog.get_logger("batchbell.worker")

FIRST_PAUSE_SECONDS = 0.5
LAST_PAUSE_SECONDS = 5.0
ALIVE_SECONDS = 300.0
"""A worker whose last step ended longer ago than this is not ready."""
LOOK_SECONDS = 5.0
"""The longest rest of a worker before it looks again whether something is due."""
LEAST_REST_SECONDS = 0.05
SHORT_REST_SECONDS = 0.1
LONGEST_SHORT_REST_SECONDS = 0.5
"""A worker that asks for shorter rests than the first, and finds nothing to do, rests longer and
longer, up to the second: what it takes for due may be held by somebody else."""


def rest_seconds(due_at: float | None, *, now: float) -> float:
    """How long a worker rests that has nothing to do before `due_at`; None where nothing waits."""
    wait = LOOK_SECONDS if due_at is None else due_at - now
    return min(max(wait, LEAST_REST_SECONDS), LOOK_SECONDS)


class Worker(Protocol):
    """A duty."""

    name: str
    signal: Signal
    """Set when there may be something to do."""

    async def step(self) -> bool:
        """Do one piece of work; whether there was any."""
        ...

    async def idle_seconds(self) -> float:
        """How long to wait for the signal when there was nothing to do."""
        ...

    async def close(self) -> None:
        """Finish what is under way, or give it back."""
        ...


@runtime_checkable
class LongStep(Protocol):
    """A worker whose steps may be long: it says when it last got on."""

    progress_at: float


class Loop:
    """Runs a worker until it is stopped. A step that raises is tried again, later and later.

    The process is ready only while its `vital` workers live.
    """

    def __init__(
        self,
        worker: Worker,
        *,
        clock: Callable[[], float],
        rand: Callable[[], float],
        metrics: Metrics,
        vital: bool = True,
    ) -> None:
        self.worker = worker
        self.vital = vital
        self._clock = clock
        self._rand = rand
        self.metrics = metrics
        self._stopping = asyncio.Event()
        self._failures = 0
        self._short_rests = 0
        self._seen_at = clock()

    def alive(self) -> bool:
        """Whether the worker has ended a step lately, or got on with a long one."""
        return self.silent_seconds() < ALIVE_SECONDS

    def silent_seconds(self) -> float:
        """How long ago that was. It grows while a step hangs."""
        seen_at = self._seen_at
        if isinstance(self.worker, LongStep):
            seen_at = max(seen_at, self.worker.progress_at)
        return abs(self._clock() - seen_at)

    def stop(self) -> None:
        """Take no new work; `run` returns when what is under way has ended."""
        self._stopping.set()
        self.worker.signal.set()

    async def run(self) -> None:
        """Step until stopped, then close the worker."""
        while not self._stopping.is_set():
            if not await self._step():
                await self._rest()
            self._seen_at = self._clock()
        await self.worker.close()

    async def _step(self) -> bool:
        try:
            worked = await self.worker.step()
        except StoreUnavailable as error:
            await self._pause(str(error), trace=False)
        except Exception as error:
            await self._pause(repr(error), trace=True)
        else:
            if worked:
                self._failures = self._short_rests = 0
            return worked
        return True

    async def _rest(self) -> None:
        try:
            asked = await self.worker.idle_seconds()
        except StoreUnavailable as error:
            await self._pause(str(error), trace=False)
            return
        self._failures = 0
        await self.worker.signal.wait(max(asked, self._least_rest(asked)))

    def _least_rest(self, asked: float) -> float:
        if asked >= SHORT_REST_SECONDS:
            self._short_rests = 0
            return 0.0
        self._short_rests += 1
        return min(asked * 2.0**self._short_rests, LONGEST_SHORT_REST_SECONDS)

    async def _pause(self, error: str, *, trace: bool) -> None:
        self._failures += 1
        self.metrics.worker_failures.labels(self.worker.name).inc()
        log.error("step failed", worker=self.worker.name, error=error, exc_info=trace)
        seconds = backoff.exponential(
            self._failures,
            base_seconds=FIRST_PAUSE_SECONDS,
            max_seconds=LAST_PAUSE_SECONDS,
            rand=self._rand(),
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


class Loops:
    """The loops of one process, each in a task of its own. They may come and go."""

    def __init__(self, loops: Iterable[Loop] = ()) -> None:
        self._loops: list[Loop] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        for loop in loops:
            self.add(loop)

    def add(self, loop: Loop) -> None:
        """Run a loop from now on; in loops that stop it only closes its worker."""
        if self._stopping:
            loop.stop()
        self._loops.append(loop)
        name = loop.worker.name
        loop.metrics.worker_silent.labels(name).set_function(partial(self._silent, name))
        task = asyncio.create_task(_supervised(loop), name=f"batchbell-{loop.worker.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def dismiss(self, loop: Loop) -> None:
        """Let a loop end with the step that it is in. Nobody waits, and it counts no more."""
        self._loops.remove(loop)
        loop.stop()

    def alive(self) -> dict[str, bool]:
        """Whether the vital workers have shown life lately, by name: all of those of a name."""
        names: dict[str, bool] = {}
        for loop in self._loops:
            if loop.vital:
                names[loop.worker.name] = names.get(loop.worker.name, True) and loop.alive()
        return names

    def silent_seconds(self) -> dict[str, float]:
        """How long ago the workers showed life, by name: the longest of a name."""
        names: dict[str, float] = {}
        for loop in self._loops:
            name = loop.worker.name
            names[name] = max(names.get(name, 0.0), loop.silent_seconds())
        return names

    def _silent(self, name: str) -> float:
        return self.silent_seconds().get(name, 0.0)

    def stop(self) -> None:
        """Take no new work from now on."""
        self._stopping = True
        for loop in self._loops:
            loop.stop()

    async def ended(self, *, within_seconds: float) -> None:
        """Wait until what was under way has ended. What has not by then is cut off."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=within_seconds)
        for task in late:
            log.warning("cut off; its leases will run out", task=task.get_name())
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


async def _supervised(loop: Loop) -> None:
    """A loop that dies is said so and started again: nothing hangs in silence."""
    while True:
        try:
            await loop.run()
        except Exception:
            log.exception("worker died and is started again", worker=loop.worker.name)
            await asyncio.sleep(FIRST_PAUSE_SECONDS)
        else:
            return
