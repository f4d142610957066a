"""A sender for tests that only have to say what a call brings."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from batchbell.core.outcome import Outcome


class Calling(ABC):
    """A `Caller` made of one coroutine for each call. A call that is cancelled brings nothing."""

    @abstractmethod
    async def send(self, url: str, headers: Mapping[str, str]) -> Outcome:
        """What a call of this URL brings."""

    def begin(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_seconds: float,
        done: Callable[[Outcome], None],
    ) -> object:
        async def call() -> None:
            done(await self.send(url, headers))

        return asyncio.create_task(call())
