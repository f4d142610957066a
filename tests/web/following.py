"""Reading `/v1/stream` in tests, frame by frame."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2

from batchbell.storage.engine import EVENTS, wake

from .making import Served

PATIENCE_SECONDS = 20.0
"""A test that waits longer has failed."""


@dataclass
class Frame:
    """One frame as it came: its fields, or its comment."""

    fields: dict[str, str] = field(default_factory=dict)
    comment: str | None = None

    @property
    def id(self) -> str:
        return self.fields["id"]

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.fields["data"])
        return found


class Stream:
    """An open stream."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()
        self.opening = Frame()

    async def frame(self) -> Frame:
        """The next one. Raises StopAsyncIteration at the end."""
        found = Frame()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while line := await anext(self._lines):
                name, _, value = line.partition(":")
                if name:
                    found.fields[name] = value.removeprefix(" ")
                else:
                    found.comment = value.strip()
        return found

    async def ids(self, count: int) -> list[str]:
        """The ids of the next events, whatever signs of life are between them."""
        found: list[str] = []
        while len(found) < count:
            frame = await self.frame()
            found += [frame.id] if frame.comment is None else []
        return found

    async def ends(self) -> bool:
        """Whether there is no frame more."""
        try:
            await self.frame()
        except StopAsyncIteration:
            return True
        return False


@contextlib.asynccontextmanager
async def following(served: Served, **how: Any) -> AsyncIterator[Stream]:
    """A stream that is open: what is recorded from now on will come. `how` is for httpx."""
    async with served.http.stream("GET", "/v1/stream", **how) as answer:
        assert answer.status_code == 200, await answer.aread()
        stream = Stream(answer)
        stream.opening = await stream.frame()
        yield stream


async def trigger(served: Served, type: str = "batch.completed") -> str:
    """Record a test event; returns its id."""
    answer = await served.http.post("/v1/events", json={"type": type})
    assert answer.status_code == 201, answer.text
    id: str = answer.json()["id"]
    return id


async def nudge(served: Served) -> None:
    """Wake every stream, with nothing to tell."""
    await served.context.store.write(lambda connection: wake(connection, EVENTS))
