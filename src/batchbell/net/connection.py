"""One connection to a receiver: it sends one call at a time, and reads its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

from batchbell.net.answer import Answer, NotHttp

BODY_SECONDS = 3.0
"""What a body gets once the status is known: it decides nothing any more."""


class ConnectionLost(Exception):
    """The connection ended before there was a status. `kept` is one that had served before."""

    def __init__(self, *, kept: bool) -> None:
        super().__init__()
        self.kept = kept


class Connection(asyncio.Protocol):
    """See the module. Whoever calls `post` calls it once at a time, and closes what is not kept."""

    def __init__(self) -> None:
        self.address: str | None = None
        """Whom it is connected to; None behind a proxy."""
        self.idle_since = 0.0
        self.answered_at: float | None = None
        """When status and headers of the latest answer were there, by the performance counter."""
        self.gone = asyncio.Event()
        """Set once it is closed."""
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._ended: Callable[[Exception | None], None] | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._served = False
        self._lost = False

    @property
    def usable(self) -> bool:
        """Whether another call may be made over it."""
        return self._answer is None and not self._lost

    def close(self) -> None:
        """End it at once; what was not sent yet is dropped."""
        if self._transport is not None:
            self._transport.abort()

    def post(
        self, request: bytes, answer: Answer, ended: Callable[[Exception | None], None]
    ) -> None:
        """Send one request and read into `answer`. Raises ConnectionLost.

        `ended` is called once the answer has ended, with what went wrong where there is no status:
        ConnectionLost or NotHttp. Never before this returns.
        """
        transport = self._transport
        if self._lost or transport is None:
            raise ConnectionLost(kept=self._served)
        self._answer, self._ended, self.answered_at = answer, ended, None
        transport.write(request)

    def give_up(self) -> None:
        """Nobody waits for the answer any more."""
        self._ended = None
        self._stop_timer()
        self.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            # Nobody asked: a server that says why it is about to close, or nonsense.
            self._lost = True
            self.close()
            return
        try:
            answer.feed(data)
        except NotHttp as error:
            self._end(error)
            return
        if answer.head is None:
            return
        if self.answered_at is None:
            self.answered_at = time.perf_counter()
        if answer.ended:
            self._end(None)
        elif self._body_timer is None and self._ended is not None:
            loop = asyncio.get_running_loop()
            self._body_timer = loop.call_later(BODY_SECONDS, self._cut)

    def eof_received(self) -> None:
        self._cut()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cut()
        self.gone.set()

    def _cut(self) -> None:
        self._lost = True
        answer = self._answer
        if answer is None:
            return
        try:
            answer.cut()
        except NotHttp as error:
            self._end(error)
            return
        lost = ConnectionLost(kept=self._served and not answer.begun)
        self._end(lost if answer.status is None else None)

    def _end(self, error: Exception | None) -> None:
        answer, ended, transport = self._answer, self._ended, self._transport
        if ended is None or answer is None or transport is None:
            return
        self._ended = None
        self._stop_timer()
        if answer.keeps and not self._lost and not transport.get_write_buffer_size():
            self._answer, self._served = None, True
        ended(error)

    def _stop_timer(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
