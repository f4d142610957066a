"""Uploads whose requests say for which account they are, by the front of their models' names.

The first request decides, and only what is in front of it is held back. From there on the bytes
go on as they come: untouched where nothing stands in front, else each line without its front, and
as long as it was, so that neither the form around it nor its length changes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers

from batchbell.core.account import by_front
from batchbell.core.errors import InvalidRequest
from batchbell.core.limits import Limits
from batchbell.core.model import Account
from batchbell.files.fronts import WrongLine, bare, model_of
from batchbell.files.lines import BYTE_ORDER_MARK
from batchbell.web.faults import Code, InvalidBody, Problem
from batchbell.web.forms import FormReader, unreadable

LINE_MAX_BYTES = Limits().line_bytes
HELD_MAX_BYTES = LINE_MAX_BYTES + 2**20
"""What is held until the first request is whole, with the fields before it."""
BATCH = b"batch"


class InvalidUpload(InvalidBody):
    """A line that cannot go on: 422, as for a submission."""

    def __init__(self, problem: Problem) -> None:
        super().__init__([problem])
        self.status = 422
        self.code = Code.INVALID_REQUESTS
        self.message = f"Line {problem.line}: {problem.message}"


class Upload:
    """An upload on its way. First `open` it, then pass its `chunks` on."""

    def __init__(
        self,
        source: AsyncIterator[bytes],
        headers: Headers,
        accounts: Mapping[str, Account],
        named: Account | None,
    ) -> None:
        self.account = named
        """Whose it is, where that is said."""
        self._source = source
        self._lines: _Lines | None = None
        boundary = _boundary(headers)
        if boundary:
            with suppress(InvalidRequest):
                self._lines = _Lines(boundary, accounts, named)
        self._held = b""

    async def open(self) -> None:
        """Take so much of it in that it is known for whom it is."""
        lines = self._lines
        while lines is not None and not lines.is_decided:
            chunk = await anext(self._source, b"")
            try:
                lines.feed(chunk) if chunk else lines.give_up()
            except InvalidRequest:
                if lines.front:
                    raise
                lines.give_up()  # it is for the provider to say what is wrong with it
        if lines is not None:
            self.account = lines.account
            self._held = lines.take()
            self._lines = lines if lines.front else None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes that go on. Raises InvalidRequest, before its end, for what must not."""
        held, self._held = self._held, b""
        if held:
            yield held
            del held
        async for chunk in self._source:
            if self._lines is None:
                yield chunk
                continue
            self._lines.feed(chunk)
            if ready := self._lines.take():
                yield ready
        if self._lines is not None:
            self._lines.finish()


def _boundary(headers: Headers) -> bytes | None:
    """That of a form that can be read."""
    kind, options = parse_options_header(headers.get("content-type"))
    if kind.lower() != b"multipart/form-data" or "content-encoding" in headers:
        return None
    return options.get(b"boundary") or None


class _Lines(FormReader):
    """The lines of the form's `file`, each changed where it lies as soon as it is whole."""

    def __init__(
        self, boundary: bytes, accounts: Mapping[str, Account], named: Account | None
    ) -> None:
        super().__init__(boundary)
        self.account = named
        self.front = ""
        self.is_decided = False
        self._accounts = accounts
        self._named = named
        self._held = bytearray()
        """What was fed and not taken. Its first byte is number `_base` of the form."""
        self._base = 0
        self._chunk = b""
        self._in_file = False
        self._begun: int | None = None
        """Where the line begins that is not whole yet; None before the file's first byte."""
        self._seen = 0
        """How far the file is known."""
        self._number = 0
        self._purpose = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Read on. Raises InvalidUpload, and InvalidRequest for what is no form."""
        self._chunk = chunk
        self._held += chunk
        super().feed(chunk)
        if not self.is_decided and len(self._held) > HELD_MAX_BYTES:
            self.give_up()

    def take(self) -> bytes:
        """What may go on."""
        ready = len(self._held)
        if self._in_file and self.front:
            ready = 0 if self._begun is None else self._begun - self._base
        taken = bytes(self._held[:ready])
        del self._held[:ready]
        self._base += ready
        return taken

    def give_up(self) -> None:
        """It goes on as it is."""
        self.is_decided = True

    def finish(self) -> None:
        """Nothing more comes. Raises InvalidRequest if that is too early."""
        if self._in_file or self._held:
            raise unreadable(ValueError("it ends before its end"))

    def begin(self) -> None:
        self._in_file = self.name == "file"
        self._begun = None

    def data(self, data: bytes, start: int, end: int) -> None:
        if self.name == "purpose" and len(self._purpose) <= len(BATCH):
            self._purpose += data[start : min(end, start + len(BATCH) + 1)]
        elif self._in_file and self._is_read:
            self._more(self._place(data, start, end), end - start)

    @property
    def _is_read(self) -> bool:
        """Whether lines matter (still)."""
        return bool(self.front) or not self.is_decided

    def _place(self, data: bytes, start: int, end: int) -> int:
        """Where it begins in the form: what was held back lies right before what was fed last."""
        fed = self._base + len(self._held) - len(self._chunk)
        return fed + start if data is self._chunk else fed - (end - start)

    def _more(self, place: int, size: int) -> None:
        if self._begun is None:
            self._begun = self._seen = place
        known, self._seen = self._seen, self._seen + size
        while self._is_read and (found := self._find(known)) >= 0:
            known = found + 1
            self._whole(known)
        if not self.is_decided and not self._may_be_a_request():
            self.give_up()
        if self._seen - self._begun > LINE_MAX_BYTES:
            self._too_long()

    def _find(self, known: int) -> int:
        found = self._held.find(b"\n", known - self._base, self._seen - self._base)
        return found if found < 0 else found + self._base

    def _whole(self, end: int) -> None:
        """A line is whole that ends there."""
        assert self._begun is not None
        place = slice(self._begun - self._base, end - self._base)
        line = bytes(self._held[place])
        self._number += 1
        if line.strip():
            if not self.is_decided:
                self.is_decided = True
                self.account, self.front = by_front(model_of(line), self._accounts, self._named)
            if self.front:
                self._held[place] = self._bare(line)
        self._begun = end

    def _bare(self, line: bytes) -> bytes:
        try:
            return bare(line, self.front)
        except WrongLine as error:
            raise self._wrong(error.code, error.message) from error

    def _may_be_a_request(self) -> bool:
        """By how the line begins that is not whole yet: nothing else is held for long."""
        assert self._begun is not None
        start = self._begun - self._base
        begins = bytes(self._held[start : min(start + 64, self._seen - self._base)])
        text = begins.removeprefix(BYTE_ORDER_MARK).lstrip()
        return not text or text.startswith((b"{", BYTE_ORDER_MARK[: len(text)]))

    def _too_long(self) -> None:
        if not self.is_decided:
            self.give_up()
        elif self.front:
            self._number += 1
            message = f"A line may have up to {LINE_MAX_BYTES:,} bytes."
            raise self._wrong("line_too_long", message)

    def _wrong(self, code: str, message: str) -> InvalidUpload:
        return InvalidUpload(Problem(message=message, param="file", code=code, line=self._number))

    def end(self) -> None:
        if self._in_file:
            if self._is_read and self._begun is not None and self._begun < self._seen:
                self._whole(self._seen)
            self.is_decided = True
            self._in_file = False
        elif self.name == "purpose" and self._purpose != BATCH:
            self._other_purpose()

    def _other_purpose(self) -> None:
        """Only requests of batches have an account in front of their model."""
        if self.front:
            raise InvalidRequest(
                f"The file's models are for account {self.front[:-1]!r}, so its purpose must be"
                " 'batch'. Name the account in a header instead: bb-account.",
                param="purpose",
                code=Code.INVALID_VALUE,
            )
        self.is_decided = True
