"""Single lines of batch files: JSON with a `custom_id`, in OpenAI's shape.

Only what we rely on is read (whose line it is, how it went, what it used); the bytes themselves
are passed on as they came.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any, NamedTuple

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
CACHE_WORDS = ("read", "creation")
PASSING_CODES = frozenset({"batch_expired", "batch_cancelled", "not_run"})
PASSING_ERROR = re.compile(
    r"server_?error|internal|time_?d?_?out|rate_?limit|too_many|overloaded|unavailable|connection",
    re.IGNORECASE,
)
"""Codes of errors without a status of 400 to 499 that may be no error another time."""
NOT_RUN_CODES = frozenset({"batch_expired", "batch_cancelled", "not_run"})
UNREADABLE_CODE = "unreadable_line"
"""Of what is kept of lines that are no answers."""
STATUS = re.compile(r"\s*(?:HTTP\S*\s+)?(\d{1,3})(?:\.0*)?(?:\s|$)")


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
    custom_id: Any = None


_Number = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MAX)]


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: _Number = 0
    input_tokens: _Number = 0
    completion_tokens: _Number = 0
    output_tokens: _Number = 0
    prompt_tokens_details: dict[str, Any] | None = None
    input_tokens_details: dict[str, Any] | None = None
    cache_read_input_tokens: _Number | None = None
    cache_creation_input_tokens: _Number | None = None
    completion_tokens_details: dict[str, Any] | None = None
    output_tokens_details: dict[str, Any] | None = None


class _Metered(msgspec.Struct, gc=False, rename="camel"):
    """Usage as Google counts it: what was thought, and what tools brought, stands beside."""

    prompt_token_count: _Number = 0
    tool_use_prompt_token_count: _Number = 0
    cached_content_token_count: _Number = 0
    candidates_token_count: _Number = 0
    thoughts_token_count: _Number = 0


class _Body(msgspec.Struct, gc=False):
    model: str | None = None
    usage: _Usage | None = None
    model_version: str | None = msgspec.field(name="modelVersion", default=None)
    usage_metadata: _Metered | None = msgspec.field(name="usageMetadata", default=None)
    token_count: Any = msgspec.field(name="tokenCount", default=None)
    """Of what an embedding was made of, in text."""


class Response(msgspec.Struct, gc=False):
    """What the provider answered, as it stands: `body` may be anything, and empty."""

    status_code: Any = None
    request_id: Any = None
    body: msgspec.Raw = msgspec.Raw()


class Line(msgspec.Struct, gc=False):
    """A line of an output or error file. What is `Any` is not known to be of the right type."""

    custom_id: Any = None
    id: Any = None
    response: Response | None = None
    error: Any = None

    @property
    def name(self) -> str | None:
        """The custom_id as text; None where there is none that makes sense."""
        return named(self.custom_id)


class _LooseLine(msgspec.Struct, gc=False):
    """A line whose `response` is not what it should be."""

    custom_id: Any = None
    id: Any = None
    response: msgspec.Raw = msgspec.Raw()
    error: Any = None


class _PlainResponse(msgspec.Struct, gc=False):
    status_code: int
    body: _Body | None = None


class _Plain(msgspec.Struct, gc=False):
    """What nearly all good lines are, read at once."""

    custom_id: str
    response: _PlainResponse
    error: None = None


class Spent(msgspec.Struct, frozen=True, gc=False):
    """The tokens of one answer."""

    model: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a line of an output or error file says."""

    custom_id: str | None
    """None where the line does not say whose answer it is."""
    fate: Fate
    spent: Spent | None
    passing: bool = False
    """Whether what went wrong may go right another time."""
    is_text: bool = True
    """False where the custom_id is written as a number."""


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a decoder raises for text that it cannot read."""

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_named = msgspec.json.Decoder(_Named)
_plain = msgspec.json.Decoder(_Plain)
_line = msgspec.json.Decoder(Line)
_loose_line = msgspec.json.Decoder(_LooseLine)
_response = msgspec.json.Decoder(Response)
_body = msgspec.json.Decoder(_Body)
_text = msgspec.json.Decoder(str)
_anything: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


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
            line = Read(number, offset - len(text), text.rstrip())
            raw = text = b""  # long lines are held once
            yield line
            del line


def _rest_of_line(file: IO[bytes]) -> int:
    passed = 0
    while more := file.readline(LINE_MAX_BYTES):
        passed += len(more)
        if more.endswith(b"\n"):
            break
    return passed


def check_utf8(text: bytes) -> None:
    """Raises UnicodeDecodeError. As one `str` a long line with one odd letter takes four times."""
    if len(text) > PIECE_BYTES:
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            for place in range(0, len(text), PIECE_BYTES):
                decoder.decode(text[place : place + PIECE_BYTES])
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            pass  # its place is that in the piece
        else:
            return
    text.decode()


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
    """Whose line this is; None where it says nothing that can be understood.

    Numbers count as the text that they are written as.
    """
    try:
        return named(_named.decode(text).custom_id)
    except UNREADABLE:
        return named(loosely(text).get("custom_id"))


def has_text_id(text: bytes) -> bool:
    """Whether the custom_id of a line is written as text."""
    try:
        return isinstance(_named.decode(text).custom_id, str)
    except UNREADABLE:
        return isinstance(loosely(text).get("custom_id"), str)


def named(value: Any) -> str | None:
    """A custom_id as text: some providers turn "7" into 7."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if type(value) is int else None


def read_line(text: bytes) -> Line | None:
    """A line of an output or error file; None where it is no JSON object."""
    try:
        line = _line.decode(text)
        if line.response is None or line.response.body or line.response.status_code is not None:
            return line
    except UNREADABLE:
        pass
    try:
        loose = _loose_line.decode(text)
    except UNREADABLE:
        return _mended(loosely(text))
    return Line(loose.custom_id, loose.id, _odd_response(bytes(loose.response)), loose.error)


def _odd_response(raw: bytes) -> Response | None:
    """An object in a string, a body with nothing around it, or what stands in place of null."""
    inner = unwrapped(raw)
    try:
        found = _response.decode(inner)
        bare = found.status_code is None and not found.body and _holds_an_answer(inner)
    except UNREADABLE:
        loose = loosely(inner)
        return _loose_response(loose) if loose else None
    return Response(body=msgspec.Raw(inner)) if bare else found


def answer(text: bytes) -> Answer | None:
    """What a line of an output or error file says; None where it is no JSON object."""
    try:
        plain = _plain.decode(text)
    except UNREADABLE:
        line = read_line(text)
        return None if line is None else answer_of(line)
    status, body = plain.response.status_code, plain.response.body
    return _said(plain.custom_id, status, None, None if body is None else _used(body))


def answer_of(line: Line) -> Answer:
    """What it says."""
    response = line.response
    body = unwrapped(bytes(response.body)) if response else b""
    status = status_of(response.status_code) if response else None
    if status is None and is_empty(line.error) and _holds_an_answer(body):
        status = 200  # some hosts leave it out
    is_text = isinstance(line.custom_id, str)
    return _said(line.name, status, line.error, _spent(body), is_text=is_text)


def _said(
    custom_id: str | None,
    status: int | None,
    error: Any,
    spent: Spent | None,
    *,
    is_text: bool = True,
) -> Answer:
    code = code_of(error)
    fate = _fate(status, not is_empty(error), code)
    return Answer(custom_id, fate, spent, _passing(status, fate, code), is_text)


def status_of(value: Any) -> int | None:
    """An HTTP status: a whole number, or a text that begins with one."""
    if isinstance(value, str):
        found = STATUS.match(value)
        return int(found[1]) if found else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int else None


def is_empty(value: Any) -> bool:
    """What providers write where they mean null: {}, "", [], 0, false, and objects of these."""
    if isinstance(value, dict):
        return all(map(is_empty, value.values()))
    return value is None or value in (0, "", "null", [])


def code_of(error: Any) -> str | None:
    """The code of a line's error."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else None


def unwrapped(raw: bytes) -> bytes:
    """JSON that stands in a string, as some hosts write bodies; else as it is."""
    if not raw.startswith(b'"'):
        return raw
    try:
        inner = _text.decode(raw).encode()
        _anything.decode(inner)
    except (*UNREADABLE, UnicodeEncodeError):
        return raw
    return inner if inner.lstrip().startswith(b"{") else raw


def value_of(raw: bytes) -> Any:
    """What JSON stands for, as far as it can be read."""
    try:
        return _anything.decode(raw)
    except UNREADABLE:
        return loosely(raw) or None


def _holds_an_answer(body: bytes) -> bool:
    found = value_of(body)
    says_error = isinstance(found, dict) and not is_empty(found.get("error"))
    return not is_empty(found) and not says_error


def not_run(custom_id: str | None, code: str, message: str) -> bytes:
    """The line of a request that was never answered."""
    error = {"code": code, "message": message}
    line = {"id": None, "custom_id": custom_id, "response": None, "error": error}
    return json.dumps(line, separators=(",", ":")).encode("ascii")


def unreadable(text: bytes) -> bytes:
    """A line around text that is no answer, so that nothing of it is lost: it is in `text`."""
    error = {"code": UNREADABLE_CODE, "message": "The provider's line is no JSON object."}
    kept = whole(text.decode("utf-8", "replace"))
    line = {"id": None, "custom_id": None, "response": None, "error": error, "text": kept}
    return json.dumps(line, separators=(",", ":")).encode("ascii")


def renamed(text: bytes, custom_id: str) -> bytes:
    """The same line under this custom_id, whatever it had before."""
    try:
        fields = _fields.decode(text)
        fields["custom_id"] = msgspec.Raw(json.dumps(custom_id).encode())
        return msgspec.json.encode(fields)
    except UNREADABLE:
        return json.dumps({**loosely(text), "custom_id": custom_id}, separators=(",", ":")).encode(
            "ascii"
        )


def _fate(status: int | None, is_error: bool, code: str | None) -> Fate:
    """By what is there: a refused request has a `response` of 400, and may have no `error`."""
    if status is not None and 200 <= status < 300 and not is_error:
        return Fate.SUCCEEDED
    return Fate.NOT_RUN if status is None and code in NOT_RUN_CODES else Fate.FAILED


def _passing(status: int | None, fate: Fate, code: str | None) -> bool:
    """Whether the request may be answered another time: it was not judged by what it asks."""
    match fate:
        case Fate.SUCCEEDED:
            return False
        case Fate.NOT_RUN:
            return code in PASSING_CODES
        case Fate.FAILED if status is None or not 300 <= status < 500:
            sent = status is not None and (status == 0 or status >= 500)
            return sent or code is None or PASSING_ERROR.search(code) is not None
        case Fate.FAILED:
            return status in (408, 409, 425, 429, 499)


def _spent(body: bytes) -> Spent | None:
    if not body:
        return None
    try:
        return _used(_body.decode(body))
    except UNREADABLE:
        return _used_loosely(loosely(body))


def _used(read: _Body) -> Spent | None:
    used = read.usage
    if used is None:
        metered = read.usage_metadata or _embedded(read.token_count)
        return _metered(read.model_version or read.model, metered)
    details = used.prompt_tokens_details or used.input_tokens_details
    made = used.completion_tokens_details or used.output_tokens_details
    beside = Beside()
    if details is None and not used.prompt_tokens:
        beside = Beside(used.cache_read_input_tokens or 0, used.cache_creation_input_tokens or 0)
    return Spent(
        model=read.model or "unknown",
        input_tokens=(used.prompt_tokens or used.input_tokens) + sum(beside),
        cached_tokens=_count(details, "cached_tokens") or beside.read,
        output_tokens=used.completion_tokens or used.output_tokens,
        reasoning_tokens=_reasoning(made),
    )


def _embedded(count: Any) -> _Metered | None:
    number = _tokens(count)
    fits = number is not None and 0 <= number <= TOKENS_MAX
    return _Metered(prompt_token_count=number or 0) if fits else None


def _metered(model: str | None, used: _Metered | None) -> Spent | None:
    if used is None:
        return None
    return Spent(
        model=model or "unknown",
        input_tokens=used.prompt_token_count + used.tool_use_prompt_token_count,
        cached_tokens=used.cached_content_token_count,
        output_tokens=used.candidates_token_count + used.thoughts_token_count,
        reasoning_tokens=used.thoughts_token_count,
    )


def _metered_loosely(body: dict[str, Any]) -> Spent | None:
    """The same of numbers as text."""
    said, model = body.get("usageMetadata"), body.get("modelVersion")
    if not isinstance(said, dict):
        return None
    found = {name: _tokens(said.get(name)) for name in _Metered.__struct_encode_fields__}
    numbers = {name: number for name, number in found.items() if number is not None}
    if not numbers or any(not 0 <= number <= TOKENS_MAX for number in numbers.values()):
        return None
    return _metered(model if isinstance(model, str) else None, msgspec.convert(numbers, _Metered))


class Beside(NamedTuple):
    """Input tokens that Anthropic counts beside `input_tokens`, where OpenAI's are among them."""

    read: int = 0
    """From the cache."""
    written: int = 0
    """To the cache."""


def _used_loosely(body: dict[str, Any]) -> Spent | None:
    """Of a usage with holes, or with numbers as text. One that cannot be is not believed at all."""
    model, usage = body.get("model"), body.get("usage")
    if not isinstance(usage, dict):
        return _metered_loosely(body)
    names = ("prompt_tokens", "input_tokens", "completion_tokens", "output_tokens")
    found = [_tokens(usage.get(name)) for name in names]
    if any(number is not None and not 0 <= number <= TOKENS_MAX for number in found):
        return None
    if all(number is None for number in found):
        return None
    details = {name: usage.get(f"{name}_details") for name in names}
    about_input = details[names[0]] or details[names[1]]
    beside = Beside()
    if not about_input and not found[0]:
        beside = Beside(*(_count(usage, f"cache_{word}_input_tokens") for word in CACHE_WORDS))
    return Spent(
        model=model if isinstance(model, str) and model else "unknown",
        input_tokens=(found[0] or found[1] or 0) + sum(beside),
        cached_tokens=_count(about_input, "cached_tokens") or beside.read,
        output_tokens=found[2] or found[3] or 0,
        reasoning_tokens=_reasoning(details[names[2]] or details[names[3]]),
    )


def _reasoning(details: Any) -> int:
    return _count(details, "reasoning_tokens") or _count(details, "thinking_tokens")


def _tokens(value: Any) -> int | None:
    """A number of tokens, also as text or with a fraction of nothing; None where it is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= DIGITS_MAX:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def _count(details: Any, name: str) -> int:
    value = _tokens(details.get(name)) if isinstance(details, dict) else None
    return value if value is not None and 0 <= value <= TOKENS_MAX else 0


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


def _mended(line: dict[str, Any]) -> Line | None:
    if not line:
        return None
    response = line.get("response")
    read = _loose_response(response) if isinstance(response, dict) else None
    return Line(line.get("custom_id"), line.get("id"), read, line.get("error"))


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
