"""An adapter's calls. What comes back was judged: the API's own JSON, or a ProviderError."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from batchbell import threads
from batchbell.core.errors import ProviderError, ProviderNotFound
from batchbell.core.results import Arrived
from batchbell.providers.api import Api, Reply
from batchbell.providers.values import without_nul
from batchbell.providers.verdicts import Shape, Subject, check_whole, refusal

PARSED_BYTES = 64 * 2**10
"""Longer answers are read in a thread: the event loop is everybody's."""
T = TypeVar("T")


class Calls:
    """Every verb raises ProviderError for all but a success.

    `shape` reads the API's own error shape, `secret` is kept out of messages. `about` is what a
    call asks for by its id: only an answer about it can say that it is not there.
    """

    def __init__(self, api: Api, *, shape: Shape, secret: str, clock: Callable[[], float]) -> None:
        self._api = api
        self._shape = shape
        self._secret = secret
        self._clock = clock
        self._parsing = asyncio.Lock()

    async def get(
        self, path: str, params: Mapping[str, str] | None = None, *, about: Subject | None = None
    ) -> bytes:
        return self._accepted(await self._api.get_json_bytes(path, params), about)

    async def post(
        self,
        path: str,
        body: bytes | None = None,
        *,
        about: Subject | None = None,
        timeout_seconds: float | None = None,
    ) -> bytes:
        reply = await self._api.post(path, body, timeout_seconds=timeout_seconds)
        return self._accepted(reply, about)

    async def upload(self, path: str, file: Path, *, name: str, fields: Mapping[str, str]) -> bytes:
        return self._accepted(await self._api.upload(path, file, name=name, fields=fields))

    async def post_file(
        self, path: str, file: Path, *, headers: Mapping[str, str] | None = None
    ) -> bytes:
        return self._accepted(await self._api.post_file(path, file, headers=headers))

    async def headers_of_post(
        self, path: str, body: bytes, *, headers: Mapping[str, str]
    ) -> Mapping[str, str]:
        """Those of the answer, to be asked for in lower case; its body is not looked at."""
        reply = await self._api.post(path, body, headers=headers)
        self._check(reply, None)
        return reply[1]

    async def delete(self, path: str, *, about: Subject) -> None:
        """What is not there is no error."""
        reply = await self._api.delete(path)
        with contextlib.suppress(ProviderNotFound):
            self._check(reply, about)

    async def download(
        self, path: str, target: Path, *, about: Subject, most_bytes: int, plain: bool
    ) -> Arrived:
        return await self._api.download(
            path,
            target,
            refuse=lambda status, headers, body: self.refusal(status, headers, body, about),
            most_bytes=most_bytes,
            plain=plain,
        )

    async def read(self, read: Callable[[], T], body: bytes) -> T:
        """What `read` makes of the body. Of one account one long answer is read at a time."""
        if len(body) <= PARSED_BYTES:
            return read()
        async with self._parsing:
            return await threads.parse(read)

    def refusal(
        self, status: int, headers: Mapping[str, str], body: bytes, about: Subject | None = None
    ) -> ProviderError:
        """The error that an answer stands for."""
        return refusal(
            status,
            headers,
            body,
            shape=self._shape,
            about=about,
            now=self._clock(),
            secret=self._secret,
        )

    def _accepted(self, reply: Reply, about: Subject | None = None) -> bytes:
        self._check(reply, about)
        status, _, body = reply
        check_whole(status, body)
        return without_nul(body)

    def _check(self, reply: Reply, about: Subject | None) -> None:
        status, headers, body = reply
        if not 200 <= status < 300:
            raise self.refusal(status, headers, body, about)
