"""Requests on their way in: how they are read, and when they are sent again. No sockets."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import httpx2
import msgspec

from batchbell.client.errors import ServerUnavailable, ServerUnreachable

CHUNK_BYTES = 2**20
ANSWER_SECONDS = 600.0
"""The server checks all requests before it answers."""
TRIES = 5
FIRST_PAUSE_SECONDS = 1.0
"""Twice as long before each further try: a server that restarts is back within them."""
BROKE = (httpx2.NetworkError, httpx2.RemoteProtocolError)
"""The connection, on its way or back. A server that only takes long has not broken it."""
AWAY = frozenset({502, 503, 504})

Requests = str | os.PathLike[str] | IO[bytes] | Iterable[Mapping[str, Any]]
"""A file's path, a file that is open, or the requests one by one."""


class Tries:
    """The tries of one call, under one key: when there is another, and when it is over."""

    def __init__(self, requests: Requests, key: str | None) -> None:
        self._key = key or uuid.uuid4().hex
        self._left = TRIES if _can_be_read_again(requests) else 1
        self._pause = FIRST_PAUSE_SECONDS
        self._sent = False
        self.headers = {"content-type": "application/jsonl", "idempotency-key": self._key}

    def pause_seconds(self, error: ServerUnreachable | ServerUnavailable) -> float:
        """How long to wait before the next try; raises the error where there is none.

        Of a server that was never reached, none: nobody waits for one that does not run.
        """
        self._sent |= not isinstance(error.__cause__, httpx2.ConnectError)
        if not self._sent:
            raise error
        self._left -= 1
        if not self._left or not _passes(error):
            raise self._unreached(error)
        pause, self._pause = self._pause, self._pause * 2
        return pause

    def _unreached(self, error: ServerUnreachable | ServerUnavailable) -> Exception:
        if isinstance(error, ServerUnavailable):
            return error
        unreached = ServerUnreachable(
            f"{error} The submission may have been made: hand the same requests in with the"
            f" idempotency key {self._key}, and it is not made twice."
        )
        unreached.__cause__ = error.__cause__
        return unreached


def _passes(error: ServerUnreachable | ServerUnavailable) -> bool:
    if isinstance(error, ServerUnavailable):
        return error.status in AWAY
    return isinstance(error.__cause__, BROKE)


def _can_be_read_again(requests: Requests) -> bool:
    """Whether a second reading brings the same: not of a pipe, nor of what runs dry."""
    if isinstance(requests, str | os.PathLike):
        return Path(requests).is_file()
    return isinstance(requests, Sequence)


def query(
    *,
    url: str | None,
    endpoint_id: str | None,
    endpoint: str | None,
    model: str | None,
    account: str | None,
    events: Sequence[str] | None,
    metadata: Mapping[str, str] | None,
    results: str | None,
    retry_missing: int,
    retry_max_tokens: int | None,
) -> dict[str, str]:
    query = {
        "url": url,
        "endpoint_id": endpoint_id,
        "endpoint": endpoint,
        "model": model,
        "account": account,
        "events": ",".join(events) if events else None,
        "metadata": msgspec.json.encode(metadata).decode() if metadata else None,
        "results": results,
        "retry_missing": str(retry_missing) if retry_missing else None,
        "retry_max_tokens": None if retry_max_tokens is None else str(retry_max_tokens),
    }
    return {name: value for name, value in query.items() if value is not None}


def chunks(requests: Requests) -> Iterator[bytes]:
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


async def chunks_async(requests: Requests) -> AsyncIterator[bytes]:
    """Read in a thread: neither files nor what makes requests holds the loop up."""
    read = chunks(requests)
    while (chunk := await asyncio.to_thread(next, read, None)) is not None:
        yield chunk
