"""What every provider adapter can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from batchbell.core.model import Snapshot
from batchbell.core.results import Arrived


@dataclass(frozen=True, slots=True)
class Malformed:
    """One row of a page that makes no sense; its `id` is None where even that is missing."""

    id: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of an account's batches, in the provider's order."""

    batches: tuple[Snapshot, ...]
    malformed: tuple[Malformed, ...] = ()
    next_cursor: str | None = None
    """Pass to the next `list_page`; None after the last page."""
    fault: str | None = None
    """What is odd about the page, where some of it was left out."""


class Provider(Protocol):
    """An account's way to its provider. Every verb is one HTTP call and may raise ProviderError."""

    async def list_page(self, cursor: str | None = None) -> Page:
        """Up to 100 batches after `cursor`; the first page without one."""
        ...

    async def retrieve(self, batch_id: str) -> Snapshot:
        """One batch. Raises ProviderNotFound, or MalformedBatch where the row makes no sense."""
        ...

    async def results(
        self, file_id: str, target: Path, *, most_bytes: int, plain: bool = False
    ) -> Arrived:
        """Fetch an output or error file to `target`, as it is sent: it may be compressed.

        `plain` asks for no compression. A file of more than `most_bytes` is an error.
        """
        ...

    async def upload(self, file: Path, *, name: str, expires_seconds: int | None = None) -> str:
        """Hand in a file of requests; returns its id. Never repeated, whatever happens.

        The provider is to forget it after `expires_seconds`; without them when it likes.
        """
        ...

    async def create(
        self,
        file_id: str,
        *,
        url: str,
        metadata: Mapping[str, str],
        output_expires_seconds: int | None = None,
    ) -> Snapshot:
        """Have an uploaded file run as a batch. Never repeated, whatever happens.

        Where no answer came it may have been made all the same: look for its metadata in the list.
        The provider is to forget the files that it leaves so many seconds after they were made.
        """
        ...

    async def delete_file(self, file_id: str) -> None:
        """Delete a file; one that is not there is no error."""
        ...

    async def cancel(self, batch_id: str) -> Snapshot:
        """Ask for an end. The answer is usually `cancelling`; the end is seen by watching."""
        ...
