"""OpenAI's dialect, and that of the many hosts that speak it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from batchbell import threads
from batchbell.core.errors import (
    MalformedBatch,
    ProviderError,
    ProviderNotFound,
    ProviderUnavailable,
)
from batchbell.core.model import Snapshot
from batchbell.core.polling import PAGE_SIZE
from batchbell.core.results import Arrived
from batchbell.core.twins import CREATE_SECONDS
from batchbell.providers.api import Api, Reply, quote_segment
from batchbell.providers.protocol import Malformed, Page
from batchbell.providers.rows import (
    ROWS_MAX,
    Listing,
    Undecodable,
    decode,
    id_in,
    listing_in,
    read_row,
    snapshot_from,
    without_nul,
)
from batchbell.providers.verdicts import Complaint, Subject, check_whole, refusal

PARSED_BYTES = 64 * 2**10
"""Longer answers are read in a thread: the event loop is everybody's."""
T = TypeVar("T")


class OpenAI:
    """The adapter. `secret` is the API key, to be kept out of messages; `api` sends it."""

    def __init__(
        self, api: Api, *, secret: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        self._api = api
        self._secret = secret
        self._clock = clock
        self._parsing = asyncio.Lock()

    async def list_page(self, cursor: str | None = None) -> Page:
        """As `Provider.list_page`. A 404 here is about the base URL."""
        params = {"limit": str(PAGE_SIZE)}
        if cursor is not None:
            params["after"] = cursor
        body = self._accepted(await self._api.get_json_bytes("/batches", params))
        return await self._read(lambda: page_from(body, cursor), body)

    async def retrieve(self, batch_id: str) -> Snapshot:
        """As `Provider.retrieve`. An answer about another batch is malformed."""
        path = f"/batches/{quote_segment(batch_id)}"
        about = Subject("batch", batch_id)
        body = self._accepted(await self._api.get_json_bytes(path), about)
        return await self._read(lambda: self._one(body, batch_id), body)

    async def results(
        self, file_id: str, target: Path, *, most_bytes: int, plain: bool = False
    ) -> Arrived:
        """As `Provider.results`."""
        about = Subject("file", file_id)
        return await self._api.download(
            f"/files/{quote_segment(file_id)}/content",
            target,
            refuse=lambda status, headers, body: self._refusal(status, headers, body, about),
            most_bytes=most_bytes,
            plain=plain,
        )

    async def upload(self, file: Path, *, name: str, expires_seconds: int | None = None) -> str:
        """As `Provider.upload`."""
        fields = {"purpose": "batch"}
        for word, value in _expiry(expires_seconds).items():
            fields[f"expires_after[{word}]"] = str(value)
        body = self._accepted(await self._api.upload("/files", file, name=name, fields=fields))
        identity = id_in(msgspec.Raw(body))
        if identity is None:
            raise ProviderUnavailable("The provider's answer to an upload names no file.")
        return identity

    async def create(
        self,
        file_id: str,
        *,
        url: str,
        metadata: Mapping[str, str],
        output_expires_seconds: int | None = None,
    ) -> Snapshot:
        """As `Provider.create`."""
        wish: dict[str, Any] = {
            "input_file_id": file_id,
            "endpoint": url,
            "completion_window": "24h",
            "metadata": dict(metadata),
        }
        if expiry := _expiry(output_expires_seconds):
            wish["output_expires_after"] = expiry
        reply = await self._api.post(
            "/batches", msgspec.json.encode(wish), timeout_seconds=CREATE_SECONDS
        )
        return snapshot_from(self._accepted(reply, Subject("file", file_id)))

    async def delete_file(self, file_id: str) -> None:
        """As `Provider.delete_file`."""
        reply = await self._api.delete(f"/files/{quote_segment(file_id)}")
        with contextlib.suppress(ProviderNotFound):
            self._check(reply, Subject("file", file_id))

    async def cancel(self, batch_id: str) -> Snapshot:
        """As `Provider.cancel`."""
        path = f"/batches/{quote_segment(batch_id)}/cancel"
        reply = await self._api.post(path)
        return self._one(self._accepted(reply, Subject("batch", batch_id)), batch_id)

    def _accepted(self, reply: Reply, about: Subject | None = None) -> bytes:
        """The JSON of a success. Raises ProviderError for all else."""
        self._check(reply, about)
        status, _, body = reply
        check_whole(status, body)
        return without_nul(body)

    async def _read(self, read: Callable[[], T], body: bytes) -> T:
        """What `read` makes of the body. Of one account one long answer is read at a time."""
        if len(body) <= PARSED_BYTES:
            return read()
        async with self._parsing:
            return await threads.parse(read)

    def _check(self, reply: Reply, about: Subject | None = None) -> None:
        status, headers, body = reply
        if not 200 <= status < 300:
            raise self._refusal(status, headers, body, about)

    def _refusal(
        self, status: int, headers: Mapping[str, str], body: bytes, about: Subject | None = None
    ) -> ProviderError:
        return refusal(
            status,
            headers,
            body,
            shape=complaint_in,
            about=about,
            now=self._clock(),
            secret=self._secret,
        )

    def _one(self, body: bytes, batch_id: str) -> Snapshot:
        try:
            names = decode(body, dict[str, msgspec.Raw])
        except Undecodable:
            raise ProviderUnavailable("The provider's answer is not a JSON object.") from None
        if "id" not in names:
            raise self._refusal(200, {}, body)
        snapshot = snapshot_from(body)
        if snapshot.id != batch_id:
            raise MalformedBatch(f"The provider answered with batch {snapshot.id[:80]!r} instead.")
        return snapshot


def complaint_in(answer: Any) -> Complaint | None:
    """OpenAI's error shape: `{"error": {"message", "type", "param", "code"}}`.

    vLLM and Mistral write the same without `error` around it, and `"object": "error"`.
    """
    if not isinstance(answer, dict):
        return None
    error = answer.get("error")
    if answer.get("object") == "error":
        error = answer
    if not isinstance(error, dict) or not error.keys() & {"type", "code", "param"}:
        return None
    message = error.get("message")
    if not isinstance(message, str):
        return None
    words = (str(error.get(name) or "") for name in ("code", "type"))
    codes = tuple(word for word in words if word not in ("", "None", "null"))
    return Complaint(message, codes)


def _expiry(seconds: int | None) -> dict[str, str | int]:
    """As OpenAI writes it; empty without one."""
    return {} if seconds is None else {"anchor": "created_at", "seconds": seconds}


def page_from(body: bytes, cursor: str | None) -> Page:
    """The page in a list answer to `cursor`. Raises ProviderUnavailable where it is no list."""
    try:
        listing = listing_in(body)
    except Undecodable:
        raise ProviderUnavailable("The provider's answer is not a list of batches.") from None
    rows = [read_row(row) for row in listing.data or ()]
    return Page(
        batches=tuple(row for row in rows if isinstance(row, Snapshot)),
        malformed=tuple(row for row in rows if isinstance(row, Malformed)),
        next_cursor=_next_cursor(listing, rows, cursor),
        fault=f"A page of the list has more than {ROWS_MAX} rows." if listing.surplus else None,
    )


def _next_cursor(
    listing: Listing, rows: Sequence[Snapshot | Malformed], cursor: str | None
) -> str | None:
    """None after the last page, and where the next would be this one again."""
    if listing.has_more is not True or not rows:
        return None
    last = listing.last_id if isinstance(listing.last_id, str) else ""
    following = last or rows[-1].id
    return following if following != cursor else None
