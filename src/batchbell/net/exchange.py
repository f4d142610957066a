"""One webhook call, from the URL to the outcome."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Mapping

import aiohttp
from yarl import URL

from batchbell.core import backoff, sent
from batchbell.core.outcome import Outcome
from batchbell.net.answers import (
    Answer,
    StaleConnection,
    body_text,
    location,
    read_some,
    shown_headers,
)
from batchbell.net.faults import fault_of
from batchbell.net.guard import AddressRules
from batchbell.net.timing import STOPWATCH, Stopwatch

TARGETS_KEPT = 10_000
ADDRESSES_KEPT = 10_000
BYTES_MAX = 2**20
"""aiohttp wants a larger body as a stream, so that it does not block the loop."""


class Pool:
    """The connections made under one set of rules, and the URLs judged by them."""

    def __init__(self, rules: AddressRules, session: aiohttp.ClientSession) -> None:
        self.rules = rules
        self.session = session
        self.under_way = 0
        self._targets: dict[str, URL] = {}
        self._shown: dict[str, bool] = {}

    def target(self, url: str) -> URL:
        """The URL to call; raises as `AddressRules.check_url` does."""
        target = self._targets.get(url)
        if target is None:
            if len(self._targets) >= TARGETS_KEPT:
                self._targets.clear()
            target = self._targets[url] = self.rules.target(url)
        return target

    def shows_answers_of(self, address: str) -> bool:
        """As `AddressRules.shows_answers_of`, remembered: receivers come from few addresses."""
        shown = self._shown.get(address)
        if shown is None:
            if len(self._shown) >= ADDRESSES_KEPT:
                self._shown.clear()
            shown = self._shown[address] = self.rules.shows_answers_of(address)
        return shown


class Exchange:
    """One POST and what has been read of its answer so far."""

    def __init__(
        self,
        pool: Pool,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        clock: Callable[[], float],
    ) -> None:
        self._pool = pool
        self._url = url
        self._headers = headers
        self._body = body
        self._clock = clock
        self._started_at = clock()
        self._watch = Stopwatch()
        self._answer: Answer | None = None
        self._chunks: list[bytes] = []

    async def run(self, timeout_seconds: float) -> Outcome:
        """Send and read within the time. Raises nothing but cancellation."""
        STOPWATCH.set(self._watch)
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._call()
        except Exception as error:
            if self._answer is None:
                return self._failed(error, timeout_seconds)
        # Once there is a status it decides, whatever became of the body.
        assert self._answer is not None
        return self._answered(self._answer)

    async def _call(self) -> None:
        whole = False
        try:
            self._answer = await self._post_again_if_stale()
            whole = await read_some(self._answer, self._chunks)
        finally:
            if self._answer is not None and not whole:
                self._answer.close()

    async def _post_again_if_stale(self) -> Answer:
        """A kept connection that had died unseen is no fault of the receiver's: one more try.

        Should the receiver have had the message after all, its id tells it so.
        """
        try:
            return await self._post()
        except (StaleConnection, aiohttp.ClientConnectionResetError):
            return await self._post()

    async def _post(self) -> Answer:
        data = self._body if len(self._body) <= BYTES_MAX else io.BytesIO(self._body)
        answer = await self._pool.session.post(
            self._pool.target(self._url), data=data, headers=self._headers, allow_redirects=False
        )
        self._watch.answer()
        assert isinstance(answer, Answer)
        return answer

    def _failed(self, error: Exception, timeout_seconds: float) -> Outcome:
        fault, detail = fault_of(error, timeout_seconds=timeout_seconds)
        return Outcome(
            fault=fault,
            detail=detail,
            request_headers=sent.shown(self._headers),
            started_at=self._started_at,
            duration_ms=self._watch.elapsed_ms(),
            timings=self._watch.timings(),
        )

    def _answered(self, answer: Answer) -> Outcome:
        wish = answer.headers.get("Retry-After")
        return Outcome(
            status=answer.status,
            retry_after_seconds=backoff.retry_after(wish, now=self._clock()) if wish else None,
            location=location(answer) if 300 <= answer.status < 400 else None,
            remote_address=answer.remote_address,
            response_headers=shown_headers(answer),
            response_body=self._shown_body(answer),
            request_headers=sent.shown(self._headers),
            started_at=self._started_at,
            duration_ms=self._watch.elapsed_ms(),
            timings=self._watch.timings(),
        )

    def _shown_body(self, answer: Answer) -> str | None:
        address = answer.remote_address
        if address is None or not self._pool.shows_answers_of(address):
            return None
        return body_text(answer, self._chunks)
