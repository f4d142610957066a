"""Reading a request's body: capped, whole, and field by field."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

import msgspec
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from batchbell import threads
from batchbell.api.fields import SPELLINGS, Request, respelt
from batchbell.core.errors import AddressRefused, InvalidRequest
from batchbell.core.nearest import SHOWN_MAX, hint, shown
from batchbell.web.errors import Code, InvalidBody, Problem

BODY_MAX_BYTES = 2**20
BULK_MAX_BYTES = 8 * 2**20

IN_A_THREAD_BYTES = 64 * 2**10
"""A longer body is looked through in a thread, so that others need not wait for it."""
UNKNOWN_MAX = 20
"""Unknown fields of one object that are answered; there may be any number."""
TYPES_KEPT_MAX = 100
"""Content types whose meaning is kept: most callers send the same again."""
UTF_8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Headers = Iterable[tuple[bytes, bytes]]
"""Of a request, as they came; their names are in lower case."""


async def read_json(
    request: HttpRequest, *, most: int = BODY_MAX_BYTES, optional: bool = False
) -> Any:
    """The body as JSON, whatever kind its content type names. Raises InvalidRequest.

    `curl -d` calls every body a form, so the content type decides nothing. A name that an object
    has twice is refused: one of the two values would be dropped. Where the body is `optional`, none
    at all reads as an empty object.
    """
    check_plain(request.scope["headers"])
    body = await read_body(request, most=most)
    if optional and not body.strip():
        return {}
    return await decoded(request, body)


async def decoded(request: HttpRequest, body: bytes) -> Any:
    """What the body of this request says, as `read_json` reads it. Raises InvalidRequest."""
    if len(body) > IN_A_THREAD_BYTES:
        return await threads.check_body(request.scope["state"]["project_id"], _decode, body)
    return _decode(body)


def _decode(body: bytes) -> Any:
    value = decode_json(body)
    if not _is_without_twins(body, value):
        _refuse_twins(body)
    return value


def _is_without_twins(body: bytes, value: Any) -> bool:
    """Whether it is plain that no object has a name twice: what most bodies show at a glance.

    In objects of texts each name has four quotation marks, and one that was dropped has left some
    more.
    """
    items = value if isinstance(value, list) else [value]
    if b"\\" in body or set(map(type, items)) != {dict}:
        return False
    if set(map(type, chain.from_iterable(map(dict.values, items)))) != {str}:
        return False
    return body.count(b'"') == 4 * sum(map(len, items))


def decode_json(body: bytes) -> Any:
    """The value. Raises InvalidRequest for what is not JSON."""
    try:
        return msgspec.json.decode(body.removeprefix(BYTE_ORDER_MARK))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"The body is not JSON: {_why_not_json(body, error)}"
        raise InvalidRequest(message, code=Code.INVALID_JSON) from None


def _why_not_json(body: bytes, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply."
    if not body.strip():
        return "it is empty."
    if body.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in body[:4]:
        return "it is UTF-16 or UTF-32. Send UTF-8."
    if body.lstrip().startswith(b"--"):
        return "it is a form. Send the JSON object itself as the body."
    if "trailing characters" in str(error):
        return f"{error}. Send one JSON value."
    return f"{error}."


def _refuse_twins(body: bytes) -> None:
    """Raise InvalidRequest where an object has a name twice."""
    try:
        _TWINS.decode(body.removeprefix(BYTE_ORDER_MARK).decode("utf-8"))
    except RecursionError as error:
        message = "The body is not JSON: it is nested too deeply."
        raise InvalidRequest(message, code=Code.INVALID_JSON) from error


def _pairs(pairs: Sequence[tuple[str, Any]]) -> None:
    names = {name for name, _ in pairs}
    if len(names) == len(pairs):
        return
    seen: set[str] = set()
    twin = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
    raise InvalidRequest(
        f"The body names {shown(twin)} twice in one object. Send it once.",
        param=twin[:SHOWN_MAX],
        code=Code.DUPLICATE_PARAMETER,
    )


_TWINS = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=float)
"""Looks for twins only: what it reads is thrown away."""


def check_plain(headers: Headers) -> None:
    """Raise InvalidRequest for a body that is packed, or that is text of another encoding."""
    packed = content_type = None
    for name, value in headers:
        if name == b"content-type" and content_type is None:
            content_type = value
        elif name == b"content-encoding" and packed is None:
            packed = value
    if packed is not None:
        _refuse_packed(packed.decode("latin-1").strip().lower())
    if content_type is not None and (charset := _charset(content_type)) not in UTF_8:
        raise InvalidRequest(
            f"The body is text in {shown(charset)}: send UTF-8.",
            code=Code.UNSUPPORTED_BODY,
            status=415,
        )


def _refuse_packed(packed: str) -> None:
    if packed not in ("", "identity"):
        raise InvalidRequest(
            f"This server reads no bodies packed as {shown(packed)}: send it without"
            " Content-Encoding.",
            code=Code.UNSUPPORTED_BODY,
            status=415,
        )


@functools.lru_cache(TYPES_KEPT_MAX)
def _charset(content_type: bytes) -> str:
    _, options = parse_options_header(content_type.decode("latin-1"))
    return options.get(b"charset", b"utf-8").decode("latin-1").strip().lower()


def _header(headers: Headers, wanted: bytes) -> str:
    """The first of this name; empty where there is none."""
    for name, value in headers:
        if name == wanted:
            return str(value, "latin-1")
    return ""


async def read_body(request: HttpRequest, *, most: int) -> bytes:
    """All of the body. Raises InvalidRequest as soon as it is longer than `most` bytes."""
    length = _header(request.scope["headers"], b"content-length")
    if length.isdigit() and int(length) > most:
        _too_large(most)
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size > most:
            _too_large(most)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(most: int) -> None:
    size = f"{most // 2**20} MiB" if most >= 2**20 else f"{most // 2**10} KiB"
    raise InvalidRequest(f"The body is larger than {size}.", code=Code.BODY_TOO_LARGE, status=413)


Model = TypeVar("Model", bound=Request)
Check = Callable[[Any], None]
"""Raises InvalidRequest or AddressRefused for a value that cannot be taken at this moment."""


def read(
    model: type[Model], value: Any, checks: Mapping[str, Check] | None = None, *, where: str = ""
) -> Model:
    """The value as `model` declares it. Raises InvalidBody with all that is wrong.

    `checks` judge what the declaration cannot, such as the addresses that are allowed just now.
    Each is given the value of its field if nothing else is wrong with that, None where it is
    missing. Its error may name an entry of the field, such as `accounts[2]`.
    `where` stands before the names of the fields, such as `webhook.`.
    """
    made, problems = judge(model, value, checks or {}, where=where)
    if made is None:
        raise InvalidBody(problems)
    return made


def judge(
    model: type[Model],
    value: Any,
    checks: Mapping[str, Check],
    *,
    where: str = "",
    index: int | None = None,
) -> tuple[Model | None, list[Problem]]:
    """As `read`, but gives what is wrong back: the model is None where anything is."""
    value, said = _respelt(model, value)
    try:
        made: Model | None = model.model_validate(value)
    except ValidationError as error:
        if not isinstance(value, dict):
            return None, [_no_object(where, index)]
        made, problems, spoilt = None, *_refused(model, error, where)
    else:
        problems, spoilt = [], set()
    sound = {name: one for name, one in value.items() if name not in spoilt} if spoilt else value
    if len(said) > 1:
        problems.append(_twice(said, where))
    for conflict in model.conflicts(sound, spoilt):
        path = f"{where}{conflict.field}"
        says = f"{path} {conflict.message}"
        problems.append(Problem(message=says, param=path, code=conflict.code))
        spoilt = spoilt | {conflict.field}
    for name, check in checks.items():
        if name not in spoilt:
            try:
                check(sound.get(name))
            except (AddressRefused, InvalidRequest) as error:
                problems.append(_checked(error, where, name))
    if not problems:
        return made, []
    own = model.destination()
    if said and own is not None:
        problems = [_as_said(one, where + own, where + said[0]) for one in problems]
    return None, [dataclasses.replace(one, index=index) for one in problems]


def _respelt(model: type[Request], value: Any) -> tuple[Any, tuple[str, ...]]:
    own = model.destination()
    return (value, ()) if own is None or not isinstance(value, dict) else respelt(value, own)


def _twice(said: Sequence[str], where: str) -> Problem:
    names = " and ".join(where + name for name in said)
    return Problem(
        message=f"{names} mean the same. Send one of them.",
        param=where + said[1],
        code=Code.DUPLICATE_PARAMETER,
    )


def _as_said(found: Problem, own: str, said: str) -> Problem:
    """With the destination as the caller has called it."""
    if found.param != own:
        return found
    message = found.message
    if message.startswith(f"{own} "):
        message = said + message.removeprefix(own)
    return dataclasses.replace(found, param=said, message=message)


def _no_object(where: str, index: int | None) -> Problem:
    name = where.rstrip(".") or None
    return Problem(message=f"{name or 'The body'} must be a JSON object.", param=name, index=index)


def _refused(
    model: type[Request], error: ValidationError, where: str
) -> tuple[list[Problem], set[str]]:
    """What is wrong, and the fields that it is wrong with."""
    found = error.errors(include_url=False)
    unknown = [str(one["loc"][0]) for one in found if one["type"] == "extra_forbidden"]
    problems = [*_unknown(model, unknown, where), *_wrong(found, where)]
    return problems, {str(one["loc"][0]) for one in found}


def _checked(error: AddressRefused | InvalidRequest, where: str, name: str) -> Problem:
    if isinstance(error, AddressRefused):
        return Problem(message=str(error), param=where + name, code=Code.ADDRESS_REFUSED)
    entry = error.param if (error.param or "").startswith(f"{name}[") else name
    return Problem(message=error.message, param=f"{where}{entry}", code=error.code)


@functools.cache
def names_of(model: type[Request]) -> frozenset[str]:
    """The names of a request's fields, as they are sent."""
    names = frozenset(field.alias or name for name, field in model.model_fields.items())
    return names if model.destination() is None else names | {*SPELLINGS}


def refuse_unknown(model: type[Request], value: Mapping[str, Any]) -> None:
    """Raise InvalidBody for fields that `model` does not declare, and judge no others."""
    unknown = [name for name in value if name not in names_of(model)]
    if unknown:
        raise InvalidBody(list(_unknown(model, unknown, "")))


def _unknown(model: type[Request], names: Sequence[str], where: str) -> Iterator[Problem]:
    for name in names[:UNKNOWN_MAX]:
        yield Problem(
            message=f"Unknown field {shown(where + name)}. {hint(name, names_of(model))}",
            param=f"{where}{name[:SHOWN_MAX]}",
            code=Code.UNKNOWN_PARAMETER,
        )


def _wrong(found: Sequence[ErrorDetails], where: str) -> Iterator[Problem]:
    for one in found:
        if one["type"] == "extra_forbidden":
            continue
        path, subject = _place(one["loc"], where)
        if one["type"] == "missing" or (one["input"] is None and len(one["loc"]) == 1):
            yield Problem(message=f"{subject} is required.", param=path, code=Code.MISSING_FIELD)
        else:
            yield Problem(message=f"{subject} {_says(one)}", param=path)


def _place(loc: Sequence[int | str], where: str) -> tuple[str, str]:
    """What `param` says, and what the message begins with: a key is its writer's, and no path."""
    path, subject = f"{where}{loc[0]}", ""
    for part in loc[1:]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part == "[key]":
            subject = subject.replace(": the value of ", ": the name ")
        else:
            subject = f"{path}: the value of {shown(part)}"
    return path, subject or path


def _says(found: ErrorDetails) -> str:
    """What is wrong, in our words."""
    kind, context = found["type"], found.get("ctx", {})
    if kind in ("enum", "literal_error"):
        return f"must be one of {_listed(context['expected'])}."
    if kind in ("too_long", "too_short"):
        context = {"limit": context.get("max_length", context.get("min_length"))}
    if kind == "invalid_value":
        return found["msg"]
    return WORDS.get(kind, f"cannot be taken: {found['msg']}.").format(**context)


def _listed(expected: str) -> str:
    """Pydantic says `'a', 'b' or 'c'`."""
    return expected.replace(" or ", ", ").replace("'", "")


WORDS = {
    "string_type": "must be a string.",
    "string_unicode": "holds a character that cannot be stored.",
    "string_too_short": "must have {min_length} or more characters.",
    "string_too_long": "must have at most {max_length:,} characters.",
    "bool_type": "must be true or false.",
    "int_type": "must be a whole number.",
    "int_from_float": "must be a whole number.",
    "float_type": "must be a number.",
    "finite_number": "must be a number.",
    "greater_than": "must be more than {gt:,g}.",
    "greater_than_equal": "must be {ge:,g} or more.",
    "less_than_equal": "must be {le:,.12g} or less.",
    "list_type": "must be a list.",
    "dict_type": "must be an object.",
    "too_short": "must have {limit} or more entries.",
    "too_long": "must have at most {limit:,} entries.",
}
"""By Pydantic's kind of error. A validator of ours brings its own words."""
