"""Single lines of batch files: JSON with a `custom_id`, in OpenAI's shape.

Only what we rely on is read (whose line it is, how it went, what it used); the bytes themselves
are passed on as they came.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec

from batchbell.core import payload

PIECE_BYTES = 256 * 2**10
"""What is read and written at once: with the usual 8 KiB, long lines take three times as long."""
LINE_MAX_BYTES = 64 * 2**20
"""No provider takes or makes a longer line."""
TOKENS_MAX = 10**9
"""No answer uses more: what says so is not believed, lest the governor learn from it."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DIGITS_MAX = 18
PASSING_CODES = frozenset({"batch_expired", "batch_cancelled"})
NOT_RUN_CODES = frozenset({"batch_expired", "batch_cancelled", "not_run"})


class Fate(StrEnum):
    """How a request went."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    NOT_RUN = "not_run"


class Read(msgspec.Struct, frozen=True, gc=False):
    """A line of a file: its number from 1, where its text begins, and that text, stripped."""

    number: int
    offset: int
    text: bytes


class _Named(msgspec.Struct, gc=False):
    custom_id: str


_Number = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MAX)]


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: _Number = 0
    input_tokens: _Number = 0
    completion_tokens: _Number = 0
    output_tokens: _Number = 0
    prompt_tokens_details: dict[str, Any] | None = None
    input_tokens_details: dict[str, Any] | None = None
    completion_tokens_details: dict[str, Any] | None = None
    output_tokens_details: dict[str, Any] | None = None


class _Body(msgspec.Struct, gc=False):
    model: str | None = None
    usage: _Usage | None = None


class Response(msgspec.Struct, gc=False):
    """What the provider answered, as it stands: `body` may be anything, and empty."""

    status_code: Any = None
    request_id: Any = None
    body: msgspec.Raw = msgspec.Raw()


class Line(msgspec.Struct, gc=False):
    """A line of an output or error file. What is `Any` is not known to be of the right type."""

    custom_id: str
    id: Any = None
    response: Response | None = None
    error: Any = None


class _PlainResponse(msgspec.Struct, gc=False):
    status_code: int | None = None
    body: _Body | None = None


class _PlainError(msgspec.Struct, gc=False):
    code: str | None = None


class _Plain(msgspec.Struct, gc=False):
    """What nearly all lines are, read at once."""

    custom_id: str
    response: _PlainResponse | None = None
    error: _PlainError | None = None


class Spent(msgspec.Struct, frozen=True, gc=False):
    """The tokens of one answer."""

    model: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a line of an output or error file says."""

    custom_id: str
    fate: Fate
    spent: Spent | None
    passing: bool = False
    """Whether what went wrong may go right another time."""


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a decoder raises for text that it cannot read."""

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_named = msgspec.json.Decoder(_Named)
_plain = msgspec.json.Decoder(_Plain)
_line = msgspec.json.Decoder(Line)
_body = msgspec.json.Decoder(_Body)


def open_lines(path: Path) -> IO[bytes]:
    """A file for `read_lines`."""
    return path.open("rb", PIECE_BYTES)


def read_lines(file: IO[bytes]) -> Iterator[Read]:
    """The lines of a file from its beginning, but for empty ones.

    Lines may end in CRLF, and the last need not end at all. A byte order mark is no part of one.
    One that is longer than LINE_MAX_BYTES comes without its text.
    """
    offset = number = 0
    while raw := file.readline(LINE_MAX_BYTES + 1):
        begins, offset, number = offset, offset + len(raw), number + 1
        if len(raw) > LINE_MAX_BYTES and not raw.endswith(b"\n"):
            offset += _rest_of_line(file)
            yield Read(number, begins, b"")
            continue
        text = raw.removeprefix(BYTE_ORDER_MARK).lstrip() if begins == 0 else raw.lstrip()
        if text:
            yield Read(number, offset - len(text), text.rstrip())


def _rest_of_line(file: IO[bytes]) -> int:
    passed = 0
    while more := file.readline(LINE_MAX_BYTES):
        passed += len(more)
        if more.endswith(b"\n"):
            break
    return passed


class Repeated(Exception):
    """A field stands there twice: which of the two counts depends on who reads it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def fields_of(text: bytes) -> dict[str, msgspec.Raw]:
    """The fields of an object, as every reader finds them. Raises UNREADABLE and Repeated."""
    found = _fields.decode(text)
    # Beside the quotes of the values there are two for each name, or something is to be looked at.
    quotes = text.count(b'"') - sum(bytes(value).count(b'"') for value in found.values())
    if quotes != 2 * len(found):
        _raise_repeated(text)
    return found


def _raise_repeated(text: bytes) -> None:
    pairs = json.loads(text.decode(), object_pairs_hook=tuple, parse_int=float)
    name, times = Counter(name for name, _ in pairs).most_common(1)[0]
    if times > 1:
        raise Repeated(name)


def custom_id(text: bytes) -> str | None:
    """Whose line this is; None where it says nothing that can be understood."""
    try:
        return _named.decode(text).custom_id
    except UNREADABLE:
        found = loosely(text).get("custom_id")
        return found if isinstance(found, str) else None


def read_line(text: bytes) -> Line | None:
    """A line of an output or error file; None where it cannot be understood."""
    try:
        return _line.decode(text)
    except UNREADABLE:
        return _loose_line(loosely(text))


def answer(text: bytes) -> Answer | None:
    """What a line of an output or error file says; None where it cannot be understood."""
    try:
        plain = _plain.decode(text)
    except UNREADABLE:
        line = read_line(text)
        return None if line is None else answer_of(line)
    response, error = plain.response, plain.error
    status, body = (response.status_code, response.body) if response else (None, None)
    code = error.code if error else None
    return _said(plain.custom_id, status, error is not None, code, _used(body))


def answer_of(line: Line) -> Answer:
    """What it says."""
    response, error = line.response, line.error
    status = response.status_code if response else None
    code = error.get("code") if isinstance(error, dict) else None
    return _said(
        line.custom_id,
        status if isinstance(status, int) else None,
        error is not None,
        code if isinstance(code, str) else None,
        _spent(response.body) if response else None,
    )


def _said(
    custom_id: str, status: int | None, is_error: bool, code: str | None, spent: Spent | None
) -> Answer:
    fate = _fate(status, is_error, code)
    return Answer(custom_id, fate, spent, _passing(status, fate, code))


def not_run(custom_id: str, code: str, message: str) -> bytes:
    """The line of a request that was never answered."""
    error = {"code": code, "message": message}
    line = {"id": None, "custom_id": custom_id, "response": None, "error": error}
    return json.dumps(line, separators=(",", ":")).encode("ascii")


def _fate(status: int | None, is_error: bool, code: str | None) -> Fate:
    """By what is there: a refused request has a `response` of 400, and may have no `error`."""
    if status is not None and 200 <= status < 300 and not is_error:
        return Fate.SUCCEEDED
    return Fate.NOT_RUN if status is None and code in NOT_RUN_CODES else Fate.FAILED


def _passing(status: int | None, fate: Fate, code: str | None) -> bool:
    """Too many requests and trouble of the provider's own pass, and so does the end of a batch."""
    if fate is Fate.FAILED and status is not None:
        return status == 429 or status >= 500
    return fate is Fate.NOT_RUN and code in PASSING_CODES


def _spent(body: msgspec.Raw) -> Spent | None:
    try:
        return _used(_body.decode(body))
    except UNREADABLE:
        return None


def _used(read: _Body | None) -> Spent | None:
    used = read.usage if read else None
    if read is None or used is None:
        return None
    return Spent(
        model=read.model or "unknown",
        input_tokens=used.prompt_tokens or used.input_tokens,
        cached_tokens=_count(
            used.prompt_tokens_details or used.input_tokens_details, "cached_tokens"
        ),
        output_tokens=used.completion_tokens or used.output_tokens,
        reasoning_tokens=_count(
            used.completion_tokens_details or used.output_tokens_details, "reasoning_tokens"
        ),
    )


def _count(details: dict[str, Any] | None, name: str) -> int:
    value = (details or {}).get(name)
    return value if isinstance(value, int) and 0 <= value <= TOKENS_MAX else 0


def loosely(text: bytes) -> dict[str, Any]:
    """JSON that only the standard library takes: half an emoji, bytes that are no UTF-8.

    NaN and infinities are None. Empty where it is no object.
    """
    try:
        line = json.loads(
            text.decode("utf-8", "replace"),
            parse_int=_integer,
            parse_float=payload.finite,
            parse_constant=lambda _: None,
        )
    except (ValueError, RecursionError):
        return {}
    return line if isinstance(line, dict) else {}


def _integer(digits: str) -> int | float | None:
    """Python reads no number of very many digits as a whole one."""
    return int(digits) if len(digits) <= DIGITS_MAX else payload.finite(digits)


def _loose_line(line: dict[str, Any]) -> Line | None:
    identity, response = line.get("custom_id"), line.get("response")
    if not isinstance(identity, str):
        return None
    read = _loose_response(response) if isinstance(response, dict) else None
    return Line(identity, line.get("id"), read, line.get("error"))


def _loose_response(response: dict[str, Any]) -> Response:
    try:
        body = json.dumps(response.get("body"), ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        body = ""
    raw = msgspec.Raw(whole(body).encode())
    return Response(response.get("status_code"), response.get("request_id"), raw)


def whole(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, which is no character."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


async def whole_lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """Lines as they arrive, without their ends."""
    begun = bytearray()
    async for chunk in chunks:
        ended, feed, rest = chunk.rpartition(b"\n")
        if feed:
            yield (bytes(begun) + ended).split(b"\n")
            begun.clear()
        begun += rest
    if begun:
        yield [bytes(begun)]
