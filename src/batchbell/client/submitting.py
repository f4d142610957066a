"""Handing requests in. Part of both clients."""

from __future__ import annotations

import asyncio
import os
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar, cast
from urllib.parse import quote

import httpx2
import msgspec

from batchbell.client import calls
from batchbell.client.calls import PAGE_SIZE, Call
from batchbell.client.faults import ServerUnavailable, ServerUnreachable
from batchbell.client.repeating import Requests, Tries
from batchbell.client.shapes import Page, RequestCounts

T = TypeVar("T")

CHUNK_BYTES = 2**20
ANSWER_SECONDS = 600.0
"""The server checks all requests before it answers."""
PATH = "/v1/submissions"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the requests, and the provider's batch that they are handed in as."""

    id: str
    position: int
    round: int
    state: str
    lines: int
    bytes: int
    tokens: int
    tries: int
    batch_id: str | None
    batch_status: str | None
    trouble: str | None
    note: str | None = None


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that Batchbell hands in, and tells of as one batch, under the same id."""

    id: str
    status: str
    outcome: str | None
    account: str
    provider: str
    endpoint: str | None
    model: str | None
    request_counts: RequestCounts | None
    usage: dict[str, Any] | None
    metadata: dict[str, str]
    retry_missing: int
    retry_max_tokens: int | None
    trouble: str | None
    parts: tuple[Part, ...]
    created_at: int
    cancelled_at: int | None
    ended_at: int | None


def _query(
    *,
    webhook_url: str | None,
    endpoint_id: str | None,
    endpoint: str | None,
    account: str | None,
    events: Sequence[str] | None,
    metadata: Mapping[str, str] | None,
    results: str | None,
    retry_missing: int,
    retry_max_tokens: int | None,
) -> dict[str, str]:
    told = {
        "webhook_url": webhook_url,
        "endpoint_id": endpoint_id,
        "endpoint": endpoint,
        "account": account,
        "events": ",".join(events) if events else None,
        "metadata": msgspec.json.encode(metadata).decode() if metadata else None,
        "results": results,
        "retry_missing": str(retry_missing) if retry_missing else None,
        "retry_max_tokens": None if retry_max_tokens is None else str(retry_max_tokens),
    }
    return {name: value for name, value in told.items() if value is not None}


def _chunks(requests: Requests) -> Iterator[bytes]:
    if isinstance(requests, str | os.PathLike):
        with Path(requests).open("rb") as file:
            yield from _pieces(file)
    elif hasattr(requests, "read"):
        yield from _pieces(cast("IO[bytes]", requests))
    else:
        for request in requests:
            yield msgspec.json.encode(request) + b"\n"


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(CHUNK_BYTES):
        yield piece


async def _chunks_beside(requests: Requests) -> AsyncIterator[bytes]:
    """Read in a thread: neither files nor what makes requests holds the loop up."""
    chunks = _chunks(requests)
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk


def _submissions(page_size: int) -> Call[Page[Submission]]:
    return Call("GET", PATH, Page[Submission], {"limit": str(page_size)})


def _path(submission_id: str) -> str:
    return f"{PATH}/{quote(submission_id, safe='')}"


def _one(submission_id: str) -> Call[Submission]:
    return Call("GET", _path(submission_id), Submission)


def _cancel(submission_id: str) -> Call[Submission]:
    return Call("POST", f"{_path(submission_id)}/cancel", Submission)


MADE = Call("POST", PATH, Submission)


class Submitting(ABC):
    """For the client that blocks."""

    url: str
    _http: httpx2.Client

    @abstractmethod
    def _send(self, call: Call[T]) -> T: ...

    @abstractmethod
    def _items(self, call: Call[Page[T]]) -> Iterator[T]: ...

    def submit(
        self,
        requests: Requests,
        *,
        webhook_url: str | None = None,
        endpoint_id: str | None = None,
        endpoint: str | None = None,
        account: str | None = None,
        events: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        results: str | None = None,
        retry_missing: int = 0,
        retry_max_tokens: int | None = None,
        idempotency_key: str | None = None,
    ) -> Submission:
        """Have requests answered: a file of JSON lines in OpenAI's shape, or dicts of that shape.

        `endpoint`, such as `/v1/responses`, is for requests without a `url`. What was not
        answered is handed in again `retry_missing` times, as long as all of that takes
        `retry_max_tokens` at most, by estimate. `wait`, `batch` and `results` take the
        submission's id. Raises ApiError with `problems` where requests are wrong.

        Each call has an `idempotency_key`, by default a new one: the same again makes nothing
        twice. So where the connection breaks, a file or a list is sent again by itself; all else
        can be read once only, and ServerUnreachable names the key for a try of yours.
        """
        query = _query(
            webhook_url=webhook_url,
            endpoint_id=endpoint_id,
            endpoint=endpoint,
            account=account,
            events=events,
            metadata=metadata,
            results=results,
            retry_missing=retry_missing,
            retry_max_tokens=retry_max_tokens,
        )
        tries = Tries(requests, idempotency_key)
        while True:
            try:
                return self._hand_in(_chunks(requests), query, tries.headers)
            except (ServerUnreachable, ServerUnavailable) as error:
                time.sleep(tries.pause_seconds(error))

    def _hand_in(
        self, chunks: Iterator[bytes], query: Mapping[str, str], headers: Mapping[str, str]
    ) -> Submission:
        how: dict[str, Any] = {"params": query, "headers": headers, "timeout": ANSWER_SECONDS}
        try:
            answer = self._http.post(PATH, content=chunks, **how)
        except httpx2.HTTPError as error:
            raise calls.unreachable(self.url, error) from error
        return MADE.read(answer.status_code, answer.content)

    def submission(self, submission_id: str) -> Submission:
        """One submission, with its parts."""
        return self._send(_one(submission_id))

    def submissions(self, *, page_size: int = PAGE_SIZE) -> Iterator[Submission]:
        """All submissions, newest first."""
        return self._items(_submissions(page_size))

    def cancel_submission(self, submission_id: str) -> Submission:
        """Cancel what runs, and hand nothing more in. What was answered is kept."""
        return self._send(_cancel(submission_id))


class AsyncSubmitting(ABC):
    """For the client that is awaited."""

    url: str
    _http: httpx2.AsyncClient

    @abstractmethod
    async def _send(self, call: Call[T]) -> T: ...

    @abstractmethod
    def _items(self, call: Call[Page[T]]) -> AsyncIterator[T]: ...

    async def submit(
        self,
        requests: Requests,
        *,
        webhook_url: str | None = None,
        endpoint_id: str | None = None,
        endpoint: str | None = None,
        account: str | None = None,
        events: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        results: str | None = None,
        retry_missing: int = 0,
        retry_max_tokens: int | None = None,
        idempotency_key: str | None = None,
    ) -> Submission:
        """As `Batchbell.submit`."""
        query = _query(
            webhook_url=webhook_url,
            endpoint_id=endpoint_id,
            endpoint=endpoint,
            account=account,
            events=events,
            metadata=metadata,
            results=results,
            retry_missing=retry_missing,
            retry_max_tokens=retry_max_tokens,
        )
        tries = Tries(requests, idempotency_key)
        while True:
            try:
                return await self._hand_in(_chunks_beside(requests), query, tries.headers)
            except (ServerUnreachable, ServerUnavailable) as error:
                await asyncio.sleep(tries.pause_seconds(error))

    async def _hand_in(
        self, chunks: AsyncIterator[bytes], query: Mapping[str, str], headers: Mapping[str, str]
    ) -> Submission:
        how: dict[str, Any] = {"params": query, "headers": headers, "timeout": ANSWER_SECONDS}
        try:
            answer = await self._http.post(PATH, content=chunks, **how)
        except httpx2.HTTPError as error:
            raise calls.unreachable(self.url, error) from error
        return MADE.read(answer.status_code, answer.content)

    async def submission(self, submission_id: str) -> Submission:
        """One submission, with its parts."""
        return await self._send(_one(submission_id))

    def submissions(self, *, page_size: int = PAGE_SIZE) -> AsyncIterator[Submission]:
        """All submissions, newest first."""
        return self._items(_submissions(page_size))

    async def cancel_submission(self, submission_id: str) -> Submission:
        """Cancel what runs, and hand nothing more in. What was answered is kept."""
        return await self._send(_cancel(submission_id))
