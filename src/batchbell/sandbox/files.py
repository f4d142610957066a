"""The provider's files: those that were uploaded, and those that batches leave behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from batchbell.sandbox.answers import ApiError, no_file


@dataclass(slots=True, kw_only=True)
class StoredFile:
    """A file whose bytes are made when they are first asked for: most output is never read."""

    id: str
    filename: str
    purpose: str
    created_at: int
    expires_at: int | None
    make: Callable[[], bytes] = field(repr=False)
    ready_at: float = 0.0
    """When it is processed: before, no batch can be made of it."""
    _content: bytes | None = field(default=None, repr=False)

    @property
    def content(self) -> bytes:
        if self._content is None:
            self._content = self.make()
        return self._content

    def as_object(self, now: float) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.content),
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed" if now >= self.ready_at else "pending",
            "status_details": None,
        }


class Files:
    """All files by id, oldest first; one that has expired is gone."""

    def __init__(self) -> None:
        self._files: dict[str, StoredFile] = {}

    def put(self, file: StoredFile) -> None:
        self._files[file.id] = file

    def get(self, file_id: str, now: float) -> StoredFile:
        """Raises ApiError (404) for a file that never was, was deleted or has expired."""
        file = self._files.get(file_id)
        if file is None or _expired(file, now):
            raise no_file(file_id)
        return file

    def delete(self, file_id: str, now: float) -> dict[str, Any]:
        self.get(file_id, now)
        del self._files[file_id]
        return {"id": file_id, "object": "file", "deleted": True}

    def page(
        self, now: float, *, purpose: str | None, after: str | None, limit: int, newest_first: bool
    ) -> dict[str, Any]:
        """One page in OpenAI's list shape. Raises ApiError (404) for an unknown cursor."""
        files = [f for f in self._files.values() if not _expired(f, now)]
        files = [f for f in files if purpose in (None, f.purpose)]
        if newest_first:
            files.reverse()
        start = 0
        if after is not None:
            place = next((i for i, f in enumerate(files) if f.id == after), None)
            if place is None:
                raise no_file(after)
            start = place + 1
        rows = [f.as_object(now) for f in islice(files, start, start + limit)]
        return list_object(rows, has_more=start + limit < len(files))


def _expired(file: StoredFile, now: float) -> bool:
    return file.expires_at is not None and file.expires_at <= now


def list_object(rows: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """OpenAI's list shape, with the cursors of its first and last row."""
    return {
        "object": "list",
        "data": rows,
        "first_id": rows[0].get("id") if rows else None,
        "last_id": rows[-1].get("id") if rows else None,
        "has_more": has_more,
    }


EXPIRY_SECONDS = range(3_600, 2_592_001)


def expiry(value: object, *, name: str, allowed: range = EXPIRY_SECONDS) -> int | None:
    """The seconds of an `{anchor, seconds}` object. Raises ApiError (400) for nonsense."""
    if value is None:
        return None
    try:
        seconds = int(value["seconds"])  # type: ignore[index]
        anchor = value["anchor"]  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        raise ApiError(400, f"Invalid '{name}'.", param=name, code="invalid_value") from None
    if anchor != "created_at" or seconds not in allowed:
        most = allowed.stop - 1
        text = f"Invalid '{name}': the anchor is created_at, the seconds {allowed.start} to {most}."
        raise ApiError(400, text, param=name, code="invalid_value")
    return seconds
