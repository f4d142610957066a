"""Lines as rows of a table: what users ask of an answer, each in a cell of its own.

The types are ours and do not depend on what a file has in it. A value of another type than its
column's leaves the cell empty: `body` has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from batchbell.files.lines import (
    UNREADABLE,
    Fate,
    Line,
    Response,
    answer_of,
    is_empty,
    loosely,
    read_line,
    status_of,
    unwrapped,
)

WHOLE_MAX = 2**63 - 1


class Row(NamedTuple):
    """A row. The columns stand in this order."""

    custom_id: str | None
    """Empty for what is kept of lines that are no answers."""
    status: Fate
    status_code: int | None
    """Of HTTP."""
    model: str | None
    content: str | None
    """The text of the answer: of its first choice, where there are several."""
    finish_reason: str | None
    error_code: str | None
    error_message: str | None
    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    id: str | None
    request_id: str | None
    body: str | None
    """The answer's body, as JSON."""


class _Body(msgspec.Struct, gc=False):
    """What is read of an answer, of whichever API, or of an error."""

    model: Any = None
    choices: Any = None
    output: Any = None
    content: Any = None
    stop_reason: Any = None
    status: Any = None
    incomplete_details: Any = None
    error: Any = None
    object: Any = None
    message: Any = None
    type: Any = None
    code: Any = None
    candidates: Any = None
    prompt_feedback: Any = msgspec.field(name="promptFeedback", default=None)
    model_version: Any = msgspec.field(name="modelVersion", default=None)


_body = msgspec.json.Decoder(_Body)
EMPTY = _Body()
NO_RESPONSE = Response()


def row(text: bytes) -> Row | None:
    """The row of a line; None where the line cannot be understood."""
    line = read_line(text)
    return None if line is None else _row(line)


def _row(line: Line) -> Row:
    said, response = answer_of(line), line.response or NO_RESPONSE
    raw = bytes(response.body)
    body = _read_body(unwrapped(raw))
    choice = _first(body.choices)
    error = _error_in(body) if is_empty(line.error) else line.error
    spent = said.spent
    return Row(
        custom_id=said.custom_id,
        status=said.fate,
        status_code=_whole(status_of(response.status_code)),
        model=_word(body.model) or _word(body.model_version),
        content=_content(choice, body),
        finish_reason=_finish_reason(choice, body),
        error_code=_code(error),
        error_message=_word(error) or _word(_of(error, "message")),
        input_tokens=_whole(spent and spent.input_tokens),
        cached_tokens=_whole(spent and spent.cached_tokens),
        output_tokens=_whole(spent and spent.output_tokens),
        reasoning_tokens=_whole(spent and spent.reasoning_tokens),
        id=_word(line.id),
        request_id=_word(response.request_id),
        body=None if raw in (b"", b"null") else raw.decode("utf-8", "replace"),
    )


def _read_body(raw: bytes) -> _Body:
    try:
        return _body.decode(raw)
    except UNREADABLE:
        loose = loosely(raw)
        names = zip(_Body.__struct_fields__, _Body.__struct_encode_fields__, strict=True)
        return _Body(**{name: loose.get(encoded) for name, encoded in names})


def _error_in(body: _Body) -> Any:
    """The error that a body holds, or is."""
    if body.object != "error" or body.error is not None:
        return body.error
    return {"code": body.code, "type": body.type, "message": body.message}


def _code(error: Any) -> str | None:
    """The first word that says which error it is."""
    words = (_word(_of(error, name)) for name in ("code", "type", "status"))
    return next(filter(None, words), None)


def _content(choice: Any, body: _Body) -> str | None:
    """The text of a chat completion or a completion; others may have it in many parts."""
    if choice is not None:
        said = _of(_of(choice, "message"), "content")
        return _word(_of(choice, "text")) if said is None else _text(said)
    if body.content is not None:
        return _text(body.content)
    if body.candidates is not None:
        parts = _list(_of(_of(_first(body.candidates), "content"), "parts"))
        return _text([part for part in parts if _of(part, "thought") is not True])
    messages = [part for part in _list(body.output) if _of(part, "type") == "message"]
    texts = [_text(_of(message, "content")) for message in messages]
    return _joined(texts)


def _text(content: Any) -> str | None:
    """Text as it is, or in parts, of which some are something else."""
    if isinstance(content, str):
        return content
    return _joined([_word(_of(part, "text")) for part in _list(content)])


def _joined(texts: list[str | None]) -> str | None:
    there = [text for text in texts if text is not None]
    return "".join(there) if there else None


def _finish_reason(choice: Any, body: _Body) -> str | None:
    """A message says why it stopped, a response `completed`, or why it is not complete.

    Where a prompt was blocked nothing was begun, and the reason for that is what is there.
    """
    if choice is not None:
        return _word(_of(choice, "finish_reason"))
    return (
        _word(_of(_first(body.candidates), "finishReason"))
        or _word(_of(body.prompt_feedback, "blockReason"))
        or _word(body.stop_reason)
        or _word(_of(body.incomplete_details, "reason"))
        or _word(body.status)
    )


def _first(value: Any) -> Any:
    return next(iter(_list(value)), None)


def _list(value: Any) -> Iterator[Any]:
    return iter(value if isinstance(value, list) else ())


def _of(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: Any) -> int | None:
    fits = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= WHOLE_MAX
    return value if fits else None
