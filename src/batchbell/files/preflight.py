"""Checking requests before a byte of them is uploaded, and splitting them at a provider's limits.

Every problem is named with its line: a provider names one, and minutes later. Lines are read in the
form of the account's provider, and written in OpenAI's.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn, Self

import msgspec

from batchbell.core.form import Form, ModelPlace
from batchbell.core.governor import BYTES_PER_TOKEN
from batchbell.core.limits import Limits
from batchbell.core.line_numbers import LineNumbers, Runs, number_at
from batchbell.files.custom_ids import Numbers
from batchbell.files.lines import (
    PIECE_BYTES,
    UNREADABLE,
    Read,
    Repeated,
    check_utf8,
    fields_of,
    open_lines,
    read_lines,
)
from batchbell.files.mistakes import other_than_lines, why_no_json, why_too_long

PROBLEMS_MAX = 100
MODEL_MAX = 256
URL_MAX = 256
URL = re.compile(r"/[!-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong with a line; they count from 1. None is the whole file."""

    line: int | None
    code: str
    message: str


@dataclass(slots=True, kw_only=True)
class Part:
    """One file that a provider takes."""

    path: Path
    lines: int = 0
    size: int = 0
    """In bytes."""
    tokens: int = 0
    """By estimate."""
    numbering: LineNumbers = field(default_factory=LineNumbers)


@dataclass(slots=True, kw_only=True)
class Prepared:
    """What became of a submission: its parts, or all that is wrong with it."""

    url: str | None = None
    model: str | None = None
    lines: int = 0
    parts: list[Part] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    problems_in_all: int = 0
    """`problems` are the first PROBLEMS_MAX of these."""

    def wrong(self, line: int | None, code: str, message: str) -> None:
        self.problems_in_all += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(Problem(line=line, code=code, message=message))


PLAIN = Form()

_text = msgspec.json.Decoder(str)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def prepare_file(
    file: Path,
    *,
    limits: Limits,
    form: Form,
    url: str | None,
    model: str | None,
    bytes_per_token: float,
) -> Prepared:
    """As `prepare`, with the parts beside the file; call it in a child."""
    with open_lines(file) as source:
        return prepare(
            source,
            file.parent,
            limits=limits,
            form=form,
            url=url,
            model=model,
            bytes_per_token=bytes_per_token,
        )


def prepare(
    source: IO[bytes],
    folder: Path,
    *,
    limits: Limits,
    form: Form = PLAIN,
    url: str | None = None,
    model: str | None = None,
    bytes_per_token: float = BYTES_PER_TOKEN,
) -> Prepared:
    """Read requests, and write them to parts in `folder`.

    A `url` that is given stands for lines without one; else the first line that has one does. A
    `model` is what the requests must name, if they name any. What is missing of `custom_id` and
    `method` is filled in: `request-000001` by the line's number, and POST. Where there is any
    problem the parts are of no use.
    """
    check = _Check(limits, form, url or form.endpoint, model)
    whole = other_than_lines(source)
    if whole is not None:
        check.result.wrong(None, *whole)
        return check.result
    with _Writer(folder, limits, bytes_per_token) as writer:
        for line in read_lines(source):
            text, number = check.line(line), line.number
            del line  # long lines are held once
            if text is not None and not check.result.problems_in_all:
                writer.write(text, number)
            del text
    check.result.parts = writer.parts
    if not check.result.lines and not check.result.problems_in_all:
        check.result.wrong(None, "empty_file", "The file is empty: there is no request in it.")
    if form.model is ModelPlace.APART and check.result.model is None:
        message = "No model is named: give one as `model`, beside the requests."
        check.result.wrong(None, "missing_model", message)
    return check.result


class _Reported(Exception):
    """What is wrong with a field was said: there is nothing more to say of it."""


class _Check:
    """Judges one line after the other, each by itself and by those before it."""

    def __init__(self, limits: Limits, form: Form, url: str | None, model: str | None) -> None:
        self.result = Prepared(url=url, model=model)
        self._limits = limits
        self._form = form
        self._asked_model = model
        self._seen = Numbers()
        """Where a custom_id stood first."""

    def line(self, line: Read) -> bytes | None:
        """The line as it is to be sent; None where something is wrong with it."""
        before = self.result.problems_in_all
        fields = self._fields(line)
        if fields is None:
            return None
        added: dict[str, Any] = {}
        for judge in (self._identity, self._address, self._body):
            with contextlib.suppress(_Reported):
                added |= judge(line.number, fields)
        if self.result.problems_in_all > before:
            return None
        self.result.lines += 1
        kept = fields if self._form.addressed else {}
        whole = msgspec.json.encode({**kept, **added}) if added else line.text
        # Between fields alone may it stand, and some readers would see two lines.
        return whole.replace(b"\r", b" ")

    def _fields(self, line: Read) -> dict[str, msgspec.Raw] | None:
        try:
            if not line.text or len(line.text) > self._limits.line_bytes:
                most = f"A line may have up to {self._limits.line_bytes:,} bytes."
                self._report(line.number, "line_too_long", why_too_long(line.text) or most)
            check_utf8(line.text)
            return self._once(line.number, line.text)
        except _Reported:
            return None
        except UnicodeDecodeError as error:
            place = f"byte {error.start + 1} of the line"
            self.result.wrong(line.number, "invalid_encoding", f"This is no UTF-8, at {place}.")
        except msgspec.ValidationError:
            self.result.wrong(line.number, "invalid_json_line", "A line must be a JSON object.")
        except (msgspec.DecodeError, RecursionError) as error:
            self.result.wrong(line.number, "invalid_json_line", why_no_json(line.text, error))
        return None

    def _report(self, number: int, code: str, message: str) -> NoReturn:
        self.result.wrong(number, code, message)
        raise _Reported

    def _once(self, number: int, text: bytes, where: str = "") -> dict[str, msgspec.Raw]:
        """The fields, none of which stands there twice."""
        try:
            return fields_of(text)
        except Repeated as error:
            name = f"{where}{error.name[:80]}"
            self._report(number, "duplicate_field", f"{name} stands there twice: which one counts?")

    def _text(
        self, number: int, fields: Mapping[str, msgspec.Raw], name: str, *, where: str = ""
    ) -> str | None:
        """None where it is missing."""
        raw = fields.get(name)
        if raw is None or bytes(raw) == b"null":
            return None
        try:
            return _text.decode(raw)
        except msgspec.DecodeError:
            self._report(number, f"invalid_{name}", f"{where}{name} must be a string.")

    def _identity(self, number: int, fields: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
        name = self._form.identity
        given = self._text(number, fields, name)
        identity = f"request-{number:06d}" if given is None else given
        most, pattern = self._limits.custom_id_characters, self._limits.custom_id
        if not 1 <= len(identity) <= most:
            self._report(number, f"invalid_{name}", f"{name} has 1 to {most} characters.")
        if pattern is not None and not re.fullmatch(pattern, identity):
            message = f"This provider takes {name} as {pattern} only, not {identity[:80]!r}."
            self._report(number, f"invalid_{name}", message)
        first = self._seen.add(identity, number)
        if first != number:
            message = f"{name} {identity[:80]!r} is on line {first} too."
            self._report(number, f"duplicate_{name}", message)
        return {"custom_id": identity} if given is None or not self._form.addressed else {}

    def _address(self, number: int, fields: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
        """Method and URL, of the line or of them all."""
        if self._form.addressed:
            return {**self._method(number, fields), **self._url(number, fields)}
        known = (self._form.identity, self._form.body)
        other = next((name for name in fields if name not in known), None)
        if other is not None:
            message = (
                f"This provider takes {known[0]} and {known[1]} on a line, not {other[:80]!r}."
            )
            self._report(number, "unknown_field", message)
        return {"method": "POST", "url": self.result.url}

    def _method(self, number: int, fields: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
        method = self._text(number, fields, "method")
        if method is not None and method.upper() != "POST":
            message = f"The method must be POST, not {method[:80]!r}."
            self._report(number, "invalid_method", message)
        return {} if method == "POST" else {"method": "POST"}

    def _url(self, number: int, fields: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
        url = self._text(number, fields, "url")
        if url is None:
            if self.result.url is None:
                message = "There is no url: give one, or name the endpoint of them all."
                self._report(number, "missing_url", message)
            return {"url": self.result.url}
        if len(url) > URL_MAX or not URL.fullmatch(url):
            self._report(number, "invalid_url", "url must be a path such as /v1/responses.")
        self._check_same(number, "url", url)
        return {}

    def _body(self, number: int, fields: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
        name = self._form.body
        raw = fields.get(name)
        if raw is None:
            self._report(number, f"missing_{name}", f"There is no {name}: the request goes there.")
        try:
            body = self._once(number, bytes(raw), f"{name}.")
        except msgspec.DecodeError:
            self._report(number, f"invalid_{name}", f"{name} must be an object.")
        model = self._text(number, body, "model", where=f"{name}.")
        if model is not None:
            if not 1 <= len(model) <= MODEL_MAX or "\0" in model:
                message = f"{name}.model must be a string of 1 to {MODEL_MAX} characters."
                self._report(number, "invalid_model", message)
            self._check_model(number, model)
        return {} if self._form.addressed else {"body": raw}

    def _check_model(self, number: int, model: str) -> None:
        if self._form.model is ModelPlace.ANY and self._asked_model is None:
            self.result.model = self.result.model or model
        else:
            self._check_same(number, "model", model)

    def _check_same(self, number: int, name: str, value: str) -> None:
        """That all lines of a batch have the same."""
        kept = getattr(self.result, name)
        if kept is None:
            setattr(self.result, name, value)
        elif value != kept:
            message = f"{name} is {value[:200]!r}, but {kept[:200]!r} before: a batch has one."
            self._report(number, f"mismatched_{name}", message)


def split_file(file: Path, *, limits: Limits, bytes_per_token: float, runs: Runs) -> list[Part]:
    """As `split`, with the parts beside the file; call it in a child."""
    with open_lines(file) as source:
        return split(source, file.parent, limits=limits, bytes_per_token=bytes_per_token, runs=runs)


def split(
    source: IO[bytes], folder: Path, *, limits: Limits, bytes_per_token: float, runs: Runs = ()
) -> list[Part]:
    """Write requests that were checked to smaller parts in `folder`.

    `runs` say which line of the user's file each is.
    """
    with _Writer(folder, limits, bytes_per_token) as writer:
        for line in read_lines(source):
            writer.write(line.text, number_at(runs, line.number))
    return writer.parts


def first_model(source: IO[bytes], form: Form = PLAIN) -> str | None:
    """The model that the first line names; call it in a thread."""
    first = next(read_lines(source), None)
    try:
        line = {} if first is None else _object.decode(first.text)
        model = _object.decode(line[form.body]).get("model")
        return None if model is None else _text.decode(model)
    except (*UNREADABLE, KeyError):
        return None


class _Writer:
    """Writes lines to parts, a new one whenever the next line would be too much."""

    def __init__(self, folder: Path, limits: Limits, bytes_per_token: float) -> None:
        self._folder = folder
        self._limits = limits
        self._bytes_per_token = bytes_per_token
        self._file: IO[bytes] | None = None
        self.parts: list[Part] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, text: bytes, number: int | None) -> None:
        tokens = math.ceil(len(text) / self._bytes_per_token)
        if self._file is None or not self._fits(self.parts[-1], len(text) + 1, tokens):
            self._begin()
        assert self._file is not None
        part = self.parts[-1]
        part.lines += 1
        part.numbering.add(number)
        part.size += len(text) + 1
        part.tokens += tokens
        self._file.write(text)
        self._file.write(b"\n")

    def _fits(self, part: Part, size: int, tokens: int) -> bool:
        return (
            part.lines < self._limits.lines
            and part.size + size <= self._limits.bytes
            and (self._limits.tokens is None or part.tokens + tokens <= self._limits.tokens)
        )

    def _begin(self) -> None:
        if self._file is not None:
            self._file.close()
        self.parts.append(Part(path=self._folder / f"part-{len(self.parts) + 1:04d}.jsonl"))
        self._file = self.parts[-1].path.open("wb", PIECE_BYTES)
