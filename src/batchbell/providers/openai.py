"""OpenAI's dialect, and that of the many hosts that speak it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from batchbell.core.errors import (
    MalformedBatch,
    ProviderError,
    ProviderNotFound,
    ProviderRejected,
    ProviderUnavailable,
)
from batchbell.core.model import Snapshot
from batchbell.core.pacing import PAGE_SIZE
from batchbell.providers.api import Api, Reply, quote_segment, refusal
from batchbell.providers.protocol import Malformed, Page
from batchbell.providers.rows import Undecodable, decode, id_in, snapshot_from, without_nul


class Listing(msgspec.Struct):
    """A list page whose rows are read one by one, so that one bad row spoils only itself."""

    data: list[msgspec.Raw]
    has_more: Any = None
    last_id: Any = None


class OpenAI:
    """The adapter. `secret` is the API key, to be kept out of messages; `api` sends it."""

    def __init__(
        self, api: Api, *, secret: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        self._api = api
        self._secret = secret
        self._clock = clock

    async def list_page(self, cursor: str | None = None) -> Page:
        """As `Provider.list_page`. A 404 here is about the base URL, and so ProviderRejected."""
        params = {"limit": str(PAGE_SIZE)}
        if cursor is not None:
            params["after"] = cursor
        try:
            body = self._accepted(await self._api.get_json_bytes("/batches", params))
        except ProviderNotFound as error:
            raise ProviderRejected(
                f"The API has no list of batches (404): is the base URL right? {error.message}",
                status=error.status,
                code=error.code,
            ) from error
        return page_from(body, cursor)

    async def retrieve(self, batch_id: str) -> Snapshot:
        """As `Provider.retrieve`. An answer about another batch is malformed."""
        path = f"/batches/{quote_segment(batch_id)}"
        body = self._accepted(await self._api.get_json_bytes(path))
        return self._one(body, batch_id)

    def results(self, file_id: str) -> AsyncIterator[bytes]:
        """As `Provider.results`."""
        path = f"/files/{quote_segment(file_id)}/content"
        return self._api.stream(path, refuse=self._refusal)

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
        body = self._accepted(await self._api.post("/batches", msgspec.json.encode(wish)))
        return snapshot_from(body)

    async def delete_file(self, file_id: str) -> None:
        """As `Provider.delete_file`."""
        with contextlib.suppress(ProviderNotFound):
            self._accepted(await self._api.delete(f"/files/{quote_segment(file_id)}"))

    async def cancel(self, batch_id: str) -> Snapshot:
        """As `Provider.cancel`."""
        path = f"/batches/{quote_segment(batch_id)}/cancel"
        return self._one(self._accepted(await self._api.post(path)), batch_id)

    def _accepted(self, reply: Reply) -> bytes:
        status, headers, body = reply
        if 200 <= status < 300:
            return without_nul(body)
        raise self._refusal(status, headers, body)

    def _refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return refusal(status, headers, body, now=self._clock(), secret=self._secret)

    def _one(self, body: bytes, batch_id: str) -> Snapshot:
        try:
            decode(body, dict[str, msgspec.Raw])
        except Undecodable:
            raise ProviderUnavailable("The provider's answer is not a JSON object.") from None
        snapshot = snapshot_from(body)
        if snapshot.id != batch_id:
            raise MalformedBatch(f"The provider answered with batch {snapshot.id[:80]!r} instead.")
        return snapshot


def _expiry(seconds: int | None) -> dict[str, str | int]:
    """As OpenAI writes it; empty without one."""
    return {} if seconds is None else {"anchor": "created_at", "seconds": seconds}


def page_from(body: bytes, cursor: str | None) -> Page:
    """The page in a list answer to `cursor`. Raises ProviderUnavailable where it is no list."""
    try:
        listing = decode(body, Listing)
    except Undecodable:
        raise ProviderUnavailable("The provider's answer is not a list of batches.") from None
    batches: list[Snapshot] = []
    malformed: list[Malformed] = []
    for raw in listing.data:
        try:
            batches.append(snapshot_from(raw))
        except MalformedBatch as error:
            malformed.append(Malformed(id_in(raw), error.message))
    return Page(
        batches=tuple(batches),
        malformed=tuple(malformed),
        next_cursor=_next_cursor(listing, cursor),
    )


def _next_cursor(listing: Listing, cursor: str | None) -> str | None:
    """None after the last page, and where the next would be this one again."""
    if listing.has_more is not True or not listing.data:
        return None
    last = listing.last_id if isinstance(listing.last_id, str) else ""
    following = last or id_in(listing.data[-1])
    return following if following != cursor else None
