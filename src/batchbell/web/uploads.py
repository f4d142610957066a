"""Requests on their way in: from any kind of body to one file of JSON lines on the disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from batchbell.api.submissions import SubmissionOptions
from batchbell.core.errors import InvalidRequest
from batchbell.threads import disk
from batchbell.web.bodies import BULK_MAX_BYTES, check_plain, read_json
from batchbell.web.errors import Code

HEADERS_MAX_BYTES = 16 * 2**10


class FormReader(ABC):
    """Feed it a form; it says which part begins, what it holds, and that it ends.

    `name` is that of the part; `ended` is true once the whole form was fed. Raises InvalidRequest
    for what is no form.
    """

    def __init__(self, boundary: bytes) -> None:
        self.name = ""
        self.ended = False
        self._header = ""
        self._heading = bytearray()
        self._headers: dict[str, str] = {}
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._forget_headers,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self.data,
                    "on_part_end": self.end,
                    "on_end": self._on_end,
                },
            )
        except ValueError as error:
            raise unreadable(error) from error

    @abstractmethod
    def begin(self) -> None:
        """A part begins: its headers have been read."""

    @abstractmethod
    def data(self, data: bytes, start: int, end: int) -> None:
        """More of the part. `data` is what was fed last, or what was held back of before."""

    @abstractmethod
    def end(self) -> None:
        """The part ends."""

    def feed(self, chunk: bytes) -> None:
        """Read on."""
        try:
            self._parser.write(chunk)
        except ValueError as error:
            raise unreadable(error) from error

    def _forget_headers(self) -> None:
        self._headers, self._header = {}, ""
        self._heading.clear()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end].decode("latin-1").lower()
        self._check(len(self._header))

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._heading += data[start:end]
        self._check(len(self._heading))

    def _check(self, size: int) -> None:
        if size > HEADERS_MAX_BYTES:
            raise InvalidRequest("The form's headers are too long.")

    def _on_header_end(self) -> None:
        self._headers[self._header] = bytes(self._heading).decode("latin-1")
        self._header = ""
        self._heading.clear()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition"))
        self.name = options.get(b"name", b"").decode("utf-8", "replace")
        self.begin()

    def _on_end(self) -> None:
        self.ended = True


def unreadable(error: Exception) -> InvalidRequest:
    """What is said of a form that is none."""
    return InvalidRequest(f"The form cannot be read: {error}")


LINES = frozenset(
    {
        "application/jsonl",
        "application/jsonlines",
        "application/x-jsonlines",
        "application/x-ndjson",
        "application/ndjson",
        "application/octet-stream",
        "text/plain",
    }
)
LINES_HINT = "JSON lines need `content-type: application/jsonl`."
HINTS: Mapping[str, str] = {
    Code.INVALID_JSON: LINES_HINT,
    Code.BODY_TOO_LARGE: "Send the requests as JSON lines instead, of which more may come: with"
    " `content-type: application/jsonl`, or as the file of a form.",
}
FORM = "multipart/form-data"
FIELD_MAX_BYTES = 64 * 2**10
FLUSH_BYTES = 2**20
FIELDS_MAX = 32
"""Of a form: each may be as long as FIELD_MAX_BYTES, and is in memory."""


async def receive(request: Request, file: Path, *, most: int) -> Any:
    """Write the requests to `file`; returns what else was asked for, as an object.

    At most `most` bytes, of which few are ever in memory. Raises InvalidRequest.
    """
    check_plain(request.scope["headers"])
    kind, options = parse_options_header(request.headers.get("content-type"))
    words = _options(dict(request.query_params))
    match kind.decode("latin-1").lower():
        case name if name in LINES:
            await _write(_capped(request, most), file)
            return words
        case "multipart/form-data":
            boundary = options.get(b"boundary", b"")
            return _together(words, await _from_form(_capped(request, most), boundary, file))
        case _:
            return await _from_json(request, file, words)


async def keep(request: Request, file: Path, *, most: int) -> None:
    """Write a body to `file` as it is. Raises InvalidRequest."""
    check_plain(request.scope["headers"])
    await _write(_capped(request, most), file)


async def _from_form(chunks: AsyncIterator[bytes], boundary: bytes, file: Path) -> dict[str, Any]:
    if not boundary:
        raise InvalidRequest("The form names no boundary.", code=Code.INVALID_VALUE)
    form = Form(boundary, file)
    await form.read(chunks)
    if "requests" in form.fields:
        raise InvalidRequest("In a form the requests are the field `file`.", param="requests")
    return _options(form.fields)


def _together(words: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the query and those of the body. Raises InvalidRequest for what is in both."""
    for name in words.keys() & fields.keys():
        raise InvalidRequest(
            f"{name} is in the query and in the body: send it once.",
            param=name,
            code=Code.DUPLICATE_PARAMETER,
        )
    return {**words, **fields}


async def _from_json(request: Request, file: Path, words: Mapping[str, Any]) -> Any:
    try:
        body = await read_json(request, most=BULK_MAX_BYTES)
    except InvalidRequest as error:
        hint = HINTS.get(error.code or "")
        if hint is None:
            raise
        raise InvalidRequest(
            f"{error.message} {hint}", code=error.code, status=error.status
        ) from None
    if not isinstance(body, dict):
        return body
    requests = body.get("requests")
    if not isinstance(requests, list) or not requests:
        message = f"requests must be a list with one request or more. {LINES_HINT}"
        raise InvalidRequest(message, param="requests")
    lines = b"".join(_line(one) for one in requests)
    await disk(file.write_bytes, lines)
    return _together(words, {name: one for name, one in body.items() if name != "requests"})


def _line(one: Any) -> bytes:
    try:
        return msgspec.json.encode(one) + b"\n"
    except UnicodeEncodeError as error:
        message = "requests holds a character that is none: half of a pair."
        raise InvalidRequest(message, param="requests") from error


async def _capped(request: Request, most: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise InvalidRequest(
                f"The body is larger than {most:,} bytes; BATCHBELL_SUBMISSION_MAX_BYTES sets how"
                " large it may be.",
                code=Code.BODY_TOO_LARGE,
                status=413,
            )
        yield chunk


async def _write(chunks: AsyncIterator[bytes], file: Path) -> None:
    target = await disk(file.open, "wb", FLUSH_BYTES)
    try:
        async for chunk in chunks:
            await disk(target.write, chunk)
    finally:
        await disk(target.close)


class Form(FormReader):
    """A form, whose `file` goes to the disk, and whose other fields are few and short."""

    def __init__(self, boundary: bytes, file: Path) -> None:
        super().__init__(boundary)
        self.fields: dict[str, str] = {}
        self._file = file
        self._value = bytearray()
        self._seen_file = False
        self._begun = 0

    async def read(self, chunks: AsyncIterator[bytes]) -> None:
        """Take the form in. Raises InvalidRequest where it has no end, or not one file."""
        self._target = await disk(self._file.open, "wb", FLUSH_BYTES)
        try:
            async for chunk in chunks:
                await disk(self.feed, chunk)
        finally:
            await disk(self._target.close)
        if not self.ended:
            raise InvalidRequest("The form has no end: it was cut short on its way.")
        if not self._seen_file:
            raise InvalidRequest(
                "The form has no field `file` with the requests.",
                param="file",
                code=Code.MISSING_FIELD,
            )

    def begin(self) -> None:
        self._value.clear()
        self._begun += 1
        if self._begun > FIELDS_MAX:
            raise InvalidRequest(f"The form has more than {FIELDS_MAX} fields.")
        if self.name in self.fields:
            raise InvalidRequest(
                f"The form has two fields {self.name[:100]!r}: send one.",
                param=self.name[:100],
                code=Code.DUPLICATE_PARAMETER,
            )
        if self.name == "file":
            if self._seen_file:
                raise InvalidRequest("The form has two fields `file`: hand in one.", param="file")
            self._seen_file = True

    def data(self, data: bytes, start: int, end: int) -> None:
        if self.name == "file":
            self._target.write(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > FIELD_MAX_BYTES:
            raise InvalidRequest(f"{self.name} is too long.", param=self.name)

    def end(self) -> None:
        if self.name != "file":
            self.fields[self.name] = bytes(self._value).decode("utf-8", "replace")


KINDS = {
    name: {one.get("type") for one in field["anyOf"]}
    for name, field in SubmissionOptions.model_json_schema()["properties"].items()
}
"""The kinds of JSON that each option may be."""


def _options(words: Mapping[str, str]) -> dict[str, Any]:
    """Parameters as the JSON that they stand for."""
    return {name: _meant(text, KINDS.get(name, set())) for name, text in words.items()}


def _meant(text: str, kinds: Collection[str]) -> Any:
    """What cannot be read stays text."""
    if "array" in kinds:
        return [word.strip() for word in text.split(",")]
    if not {"object", "integer"}.isdisjoint(kinds):
        with suppress(msgspec.DecodeError, RecursionError):
            return msgspec.json.decode(text)
    return text
