"""Results: what their lines mean, and a file on its way. No sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from batchbell.client import calls
from batchbell.client.errors import ApiError, ServerUnreachable
from batchbell.files.lines import (
    Fate,
    Line,
    answer_of,
    is_empty,
    read_line,
    status_of,
    unwrapped,
    value_of,
)

WAIT_SECONDS = 2.0
"""Between two looks at results that are still being merged."""
TRIES = 10
"""How often a download that breaks is gone on with before it is given up."""
OnBytes = Callable[[int, int | None], None]
"""Told how many bytes there are, and of how many."""

NOT_READY = "results_not_ready"
TABLES = ("parquet", "csv")
"""Formats that the ending of a file's name may ask for."""
TAKEN = (200, 206, 416)
"""The last is a file that was there already, whole."""


class ResultResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider answered to one request."""

    status_code: int | None = None
    request_id: str | None = None
    body: Any = None


class ResultError(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no answer, where there is none."""

    code: str | None = None
    message: str | None = None


class ResultLine(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one request, in OpenAI's shape."""

    custom_id: str | None
    """None for what the provider wrote that is no answer, or does not say whose it is."""
    id: str | None = None
    response: ResultResponse | None = None
    error: ResultError | None = None

    @property
    def succeeded(self) -> bool:
        """Whether there is an answer, and a good one."""
        status = self.response.status_code if self.response else None
        return self.error is None and status is not None and 200 <= status < 300

    @property
    def body(self) -> Any:
        """The body of the answer: a chat completion, a response, embeddings; None without one."""
        return self.response.body if self.response else None


_line = msgspec.json.Decoder(ResultLine)


class Lines:
    """Cuts what arrives into lines. At line feeds only: JSON may hold all other ends of lines."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, chunk: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return lines


def result_line(text: bytes) -> ResultLine:
    """One line of the results. Raises ApiError for what is no JSON object."""
    try:
        line = _line.decode(text)
        answered = line.response is None or line.response.status_code is not None
        if answered and (line.error is None or line.error.code or line.error.message):
            return line
    except (msgspec.DecodeError, UnicodeError):
        pass
    odd = read_line(text)
    if odd is None:
        raise ApiError("A line of the results is no JSON object.", status=200)
    return _mended(odd)


def _mended(odd: Line) -> ResultLine:
    """A line whose values are not of the types that they should be, as a provider wrote it."""
    response = odd.response
    read = None
    if response is not None:
        good = answer_of(odd).fate is Fate.SUCCEEDED
        read = ResultResponse(
            status_code=status_of(response.status_code) or (200 if good else None),
            request_id=_word(response.request_id),
            body=value_of(unwrapped(bytes(response.body))),
        )
    return ResultLine(
        custom_id=odd.name, id=_word(odd.id), response=read, error=_error_of(odd.error)
    )


def _error_of(error: Any) -> ResultError | None:
    if is_empty(error):
        return None
    if isinstance(error, dict):
        code, message = _word(error.get("code")), _word(error.get("message"))
        return ResultError(code=code, message=message or str(error))
    return ResultError(message=_word(error) or str(error))


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None


@dataclass(slots=True)
class Download:
    """A file on its way: what is there already, and how to ask for the rest."""

    batch_id: str
    target: Path
    status: str | None
    format: str | None

    def call(self) -> tuple[str, dict[str, str]]:
        ending = self.target.suffix.lower().removeprefix(".")
        format = self.format or (ending if ending in TABLES else None)
        return calls.results(self.batch_id, status=self.status, format=format)

    @property
    def part(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def mark(self) -> Path:
        """Beside the part: which file it is a part of."""
        return self.target.with_name(f"{self.target.name}.part.etag")

    def begin(self) -> dict[str, str]:
        """The headers to go on with."""
        there = self.part.stat().st_size if self.part.exists() and self.mark.exists() else 0
        headers = {"accept-encoding": "identity"}
        if there:
            headers |= {"range": f"bytes={there}-", "if-range": self.mark.read_text("ascii")}
        return headers

    @contextmanager
    def taking(
        self, answer: httpx2.Response, on_bytes: OnBytes | None
    ) -> Iterator[Callable[[bytes], None]]:
        """Take up what is answered: what is there goes on, or another file is begun."""
        if answer.status_code == 200:
            self.part.write_bytes(b"")
            self._note(answer.headers.get("etag"))
        there = self.part.stat().st_size
        length = answer.headers.get("content-length")
        size = there + int(length) if length is not None else None

        def take(chunk: bytes) -> None:
            nonlocal there
            if answer.status_code != 416:
                there += file.write(chunk)
            if on_bytes is not None:
                on_bytes(there, size)

        with self.part.open("ab") as file:
            yield take

    def _note(self, etag: str | None) -> None:
        """What has no etag cannot be gone on with."""
        if etag is None:
            self.mark.unlink(missing_ok=True)
        else:
            self.mark.write_text(etag, "ascii")

    def end(self) -> None:
        self.part.replace(self.target)
        self.mark.unlink(missing_ok=True)


def never_reached(error: ServerUnreachable, left: int) -> bool:
    """Whether no server was there at the first try: then none has broken off."""
    return left == TRIES - 1 and isinstance(error.__cause__, httpx2.ConnectError)
