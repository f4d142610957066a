"""Reading a request's body: capped, whole, and field by field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request

from batchbell.core.errors import InvalidRequest
from batchbell.web.faults import Code, InvalidBody, Problem

BODY_MAX_BYTES = 2**20
BULK_MAX_BYTES = 8 * 2**20

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""PostgreSQL stores no NUL character, and UTF-8 has no lone surrogates."""


async def read_json(request: Request, *, most: int = BODY_MAX_BYTES, optional: bool = False) -> Any:
    """The body as JSON, whatever its content type says. Raises InvalidRequest.

    Where the body is `optional`, none at all reads as an empty object.
    """
    body = await read_body(request, most=most)
    if optional and not body.strip():
        return {}
    return decode_json(body)


def decode_json(body: bytes) -> Any:
    """The value. Raises InvalidRequest for what is not JSON."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidRequest(f"The body is not JSON: {why}", code=Code.INVALID_JSON) from None


async def read_body(request: Request, *, most: int) -> bytes:
    """All of the body. Raises InvalidRequest as soon as it is longer than `most` bytes."""
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > most:
        _too_large(most)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            _too_large(most)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(most: int) -> None:
    raise InvalidRequest(
        f"The body is larger than {most // 2**20} MiB.", code=Code.BODY_TOO_LARGE, status=413
    )


class Fields:
    """The fields of one JSON object; what is wrong with them gathers in `problems`.

    `where` stands before the names of the fields, such as `watches[3].`. A field that is wrong
    reads as an empty value: ask `raise_problems` before using any.
    """

    def __init__(self, value: Any, *, where: str = "", index: int | None = None) -> None:
        self._values: Mapping[str, Any] = value if isinstance(value, dict) else {}
        self._where = where
        self._index = index
        self.problems: list[Problem] = []
        if not isinstance(value, dict):
            self.wrong(None, f"{where.rstrip('.') or 'The body'} must be a JSON object.")

    def path(self, name: str | None) -> str | None:
        """The field's name as an error names it."""
        return f"{self._where}{name}" if name else self._where.rstrip(".") or None

    def wrong(self, name: str | None, message: str, code: str = Code.INVALID_VALUE) -> None:
        """Note a problem of the field."""
        self.problems.append(
            Problem(message=message, param=self.path(name), code=code, index=self._index)
        )

    def raise_problems(self) -> None:
        """Raise InvalidBody if anything was wrong."""
        if self.problems:
            raise InvalidBody(self.problems)

    def get(self, name: str) -> Any:
        """The value as it came; None where it is missing."""
        return self._values.get(name)

    def has(self, name: str) -> bool:
        """Whether it is there at all, if only as null."""
        return name in self._values

    def flag(self, name: str) -> bool:
        """True or false; false where it is missing or null."""
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            self.wrong(name, f"{self.path(name)} must be true or false.")
        return value is True

    def optional_number(self, name: str, *, least: float, most: float) -> float | None:
        """A number from `least` to `most`, or None where it is missing or null."""
        value = self.get(name)
        if value is None:
            return None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not least <= value <= most:
            self.wrong(name, f"{self.path(name)} must be a number from {least:g} to {most:g}.")
            return None
        return float(value)

    def text(self, name: str, *, most: int, pattern: str | None = None, shape: str = "") -> str:
        """A string of 1 to `most` characters that must be there; `shape` explains `pattern`."""
        value = self.get(name)
        if value is None:
            self._missing(name)
        elif not isinstance(value, str):
            self.wrong(name, f"{self.path(name)} must be a string.")
        elif not 1 <= len(value) <= most:
            self.wrong(name, f"{self.path(name)} must have 1 to {most} characters.")
        elif UNSTORABLE.search(value):
            self.wrong(name, f"{self.path(name)} holds a character that cannot be stored.")
        elif pattern is not None and not re.fullmatch(pattern, value):
            self.wrong(name, f"{self.path(name)} {shape}")
        else:
            return value
        return ""

    def optional_text(self, name: str, *, most: int) -> str | None:
        """A string, or None where it is missing or null."""
        return None if self.get(name) is None else self.text(name, most=most)

    def _missing(self, name: str) -> None:
        if self.problems and self.problems[0].param == self.path(None):
            return  # it is no object at all, and that was said
        self.wrong(name, f"{self.path(name)} is required.", Code.MISSING_FIELD)
