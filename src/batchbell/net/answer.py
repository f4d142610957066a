"""A receiver's answer: read byte by byte, and what is kept of it.

Receivers are strangers, and their answers are often odd. The status line decides what becomes of a
delivery, so it is read as generously as possible; whatever is odd after it costs only what could be
shown to people, and the connection, which is not used again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from batchbell.core.sent_headers import MASK

BODY_MAX_BYTES = 16 * 1024
"""What is kept of a body."""
READ_MAX_BYTES = 64 * 1024
"""What is read of a body, so that the connection can be kept."""
HEAD_MAX_BYTES = 512 * 1024
HEAD_KEPT_BYTES = 2048
"""Heads up to this are remembered: a receiver says the same of answers of the same second."""
HEADS_KEPT = 512
LINES_MAX = 2000
LINE_MAX_BYTES = 1024
"""The line before a chunk."""
HEADERS_MAX = 32
HEADER_MAX_CHARACTERS = 500
LOCATION_MAX_CHARACTERS = 200
CREDENTIALS = re.compile(r"(bearer|basic|digest) |v1,|whsec_", re.IGNORECASE | re.ASCII)
"""How values begin that may be somebody's: an echo of what was sent, say."""

SECRET_HEADERS = frozenset({"set-cookie", "set-cookie2", "cookie", "www-authenticate"})
SECRET_PARTS = (
    "auth",
    "token",
    "secret",
    "signature",
    "api-key",
    "apikey",
    "password",
    "session",
    "credential",
)
REPLACEMENT = "\ufffd"

STATUS_LINE = re.compile(rb"(?i)HTTP/(\d)(?:\.(\d))?[ \t]+([1-9]\d\d)(?!\d)[^\n]*\n")
HEAD_END = re.compile(rb"\n\r?\n")
LENGTH = re.compile(r"\d{1,18}", re.ASCII)
CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}")
PREFIX = b"HTTP/"
SWITCHING = 101
BODILESS = frozenset({204, 304})


class NotHttp(Exception):
    """What came does not begin with the status line of an HTTP answer."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer: what it says, and how its body is framed (RFC 9112, 6.3)."""

    status: int
    headers: Mapping[str, str]
    """By names in lower case."""
    shown: Mapping[str, str]
    """What people may see of them."""
    keeps: bool
    """Whether the connection may be used again after the body."""
    bodiless: bool = False
    chunked: bool = False
    length: int | None = None

    @property
    def is_interim(self) -> bool:
        return self.status < 200 and self.status != SWITCHING


class Answer:
    """An answer as far as it has been read. Does no I/O: `feed` it what came.

    `ended` says that nothing more is to be read: the body is whole, or too long, or cannot be
    followed any further.
    """

    __slots__ = (
        "_body",
        "_chunks",
        "_left",
        "_pending",
        "_read",
        "ended",
        "head",
        "keeps",
    )

    def __init__(self) -> None:
        self._pending = b""
        self.head: Head | None = None
        """None until it is whole."""
        self._chunks: Chunks | None = None
        self._left: int | None = None
        self._read = 0
        self._body = bytearray()
        self.ended = False
        self.keeps = False
        """Whether the connection may be used again."""

    @property
    def begun(self) -> bool:
        """Whether anything has come."""
        return self.head is not None or bool(self._pending)

    @property
    def headers(self) -> Mapping[str, str] | None:
        """By names in lower case; None until the head is whole."""
        return None if self.head is None else self.head.headers

    @property
    def status(self) -> int | None:
        """The final status, as soon as its line is whole. Interim answers (1xx) do not count."""
        if self.head is not None:
            return self.head.status
        line = self._status_line()
        return None if line is None or _is_interim(line) else int(line[3])

    @property
    def body(self) -> bytes:
        """What is kept of it."""
        return bytes(self._body[:BODY_MAX_BYTES])

    def feed(self, data: bytes) -> None:
        """Take in what came. Raises NotHttp."""
        if self.head is not None:
            self._feed_body(data)
            return
        seen = max(0, len(self._pending) - 2)
        self._pending = self._pending + data if self._pending else data
        while end := HEAD_END.search(self._pending, seen):
            seen = 0
            self._take_head(end.end())
            if self.head is not None:
                return
        self._check_beginning()

    def cut(self) -> None:
        """The connection has ended, or is given up. Raises NotHttp for what was no answer."""
        if self.head is None and self.status is None and self._pending and not self._promises():
            raise NotHttp
        self.ended, self.keeps = True, False

    def _status_line(self) -> re.Match[bytes] | None:
        return STATUS_LINE.match(self._pending, _after_empty_lines(self._pending))

    def _promises(self) -> bool:
        """Whether what came of the head so far may be the begin of an answer."""
        begin = self._pending[_after_empty_lines(self._pending) :]
        whole = b"\n" in begin
        return PREFIX.startswith(begin[: len(PREFIX)].upper()) and (
            not whole or self._status_line() is not None
        )

    def _check_beginning(self) -> None:
        """Say at once what is no answer, and end a head that has no end."""
        if not self._promises():
            raise NotHttp
        if len(self._pending) > HEAD_MAX_BYTES:
            if self.status is None:
                raise NotHttp
            self.cut()

    def _take_head(self, end: int) -> None:
        """Take a whole head from what waits: an interim one is dropped."""
        waits = self._pending
        begin = _after_empty_lines(waits)
        if begin >= end:
            self._pending = waits[begin:]
            return
        read = known_head if end - begin <= HEAD_KEPT_BYTES else read_head
        head, rest = read(waits[begin:end]), waits[end:]
        if head.is_interim:
            self._pending = rest
            return
        self.head, self._pending = head, b""
        self.ended, self.keeps, self._left = head.bodiless, head.keeps, head.length
        if head.chunked:
            self._chunks = Chunks()
        if rest:
            self._feed_body(rest)

    def _feed_body(self, data: bytes) -> None:
        if self.ended:
            self.keeps = False  # more came than was announced
            return
        self._read += len(data)
        if self._chunks is not None:
            self._keep(self._chunks.feed(data))
            self.ended = self._chunks.ended
            self.keeps = self.keeps and not self._chunks.broken
        elif self._left is not None:
            self._keep(data[: self._left])
            self._left -= len(data)
            self.ended = self._left <= 0
            self.keeps = self.keeps and self._left >= 0
        else:
            self._keep(data)
        if self._read > READ_MAX_BYTES and not self.ended:
            self.cut()

    def _keep(self, data: bytes) -> None:
        if len(self._body) < BODY_MAX_BYTES:
            self._body += data


class Chunks:
    """A body in the chunked coding (RFC 9112, 7.1), taken apart as it comes."""

    __slots__ = ("_last", "_left", "_pending", "broken", "ended")

    def __init__(self) -> None:
        self._pending = b""
        self._left = 0
        self._last = False
        self.ended = False
        self.broken = False
        """It made no sense, or more came than belongs to it."""

    def feed(self, data: bytes) -> bytes:
        """What `data` brings of the body."""
        self._pending += data
        pieces = []
        while self._pending and not self.ended:
            if self._left:
                piece = self._pending[: self._left]
                self._pending = self._pending[len(piece) :]
                self._left -= len(piece)
                pieces.append(piece)
            elif not self._take_line():
                break
        self.broken = self.broken or (self.ended and bool(self._pending))
        return b"".join(pieces)

    def _take_line(self) -> bool:
        """Whether there was a whole line: a size, the end of a chunk, or a trailer."""
        line, end, rest = self._pending.partition(b"\n")
        if not end and len(line) <= LINE_MAX_BYTES:
            return False
        self._pending, line = rest, line.strip()
        if self._last:
            self.ended = not line
        elif line:
            size = CHUNK_SIZE.match(line)
            self._left = int(size[0], 16) if size else 0
            self._last = size is not None and self._left == 0
            self.broken = self.ended = size is None
        return True


def read_head(data: bytes) -> Head:
    """Read a head, which ends with an empty line. Raises NotHttp."""
    line = STATUS_LINE.match(data)
    if line is None:
        raise NotHttp
    status, headers = int(line[3]), parse_headers(data[line.end() : data.rindex(b"\n", 0, -1) + 1])
    options = headers.get("connection", "").lower()
    is_modern = line[1] == b"1" and line[2] == b"1"
    keeps = "close" not in options if is_modern else "keep-alive" in options
    shown = shown_headers(headers)
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if status in BODILESS or status == SWITCHING:
        return Head(status, headers, shown, keeps and status != SWITCHING, bodiless=True)
    if coding is not None:
        chunked = coding.lower().rpartition(",")[2].strip() == "chunked"
        return Head(status, headers, shown, keeps and chunked and length is None, chunked=chunked)
    if length is not None and LENGTH.fullmatch(length):
        left = int(length)
        return Head(status, headers, shown, keeps, bodiless=left == 0, length=left)
    return Head(status, headers, shown, keeps=False)


known_head = lru_cache(maxsize=HEADS_KEPT)(read_head)


def _is_interim(line: re.Match[bytes]) -> bool:
    return line[3][:1] == b"1" and int(line[3]) != SWITCHING


def _after_empty_lines(data: bytes) -> int:
    """Where an answer begins: some servers send a line end too many after the last one."""
    return 0 if data[:1] not in (b"\r", b"\n") else len(data) - len(data.lstrip(b"\r\n"))


def parse_headers(lines: bytes) -> dict[str, str]:
    """Header lines by name, in lower case; what is sent twice is joined by a comma.

    What makes no sense is left out, and so is what follows the first thousands.
    """
    headers: dict[str, str] = {}
    name = ""
    for line in lines.decode("utf-8", "replace").split("\n", LINES_MAX)[:LINES_MAX]:
        if line[:1] in (" ", "\t"):  # a line that was folded
            value = f"{headers.get(name, '')} {line.strip()}"
        else:
            name, colon, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            if not colon:
                continue
            if name in headers:
                value = f"{headers[name]}, {value}"
        if len(headers.get(name, "")) < HEADER_MAX_CHARACTERS:
            headers[name] = value
    return headers


def body_text(answer: Answer) -> str:
    """The body as text that any database takes. A compressed body is not unpacked: a bomb."""
    body = answer.body
    encoding = (answer.headers or {}).get("content-encoding")
    if body and encoding not in (None, "", "identity"):
        return f"[{len(body)} bytes of {clean(encoding, 40)}, not unpacked]"
    return body.decode("utf-8", "replace").replace("\x00", REPLACEMENT)


def shown_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The first headers, names in lower case, without what looks like a secret."""
    shown: dict[str, str] = {}
    for name, value in headers.items():
        if len(shown) == HEADERS_MAX:
            break
        key, secret = _header_name(name)
        shown[key] = (
            MASK if secret or CREDENTIALS.match(value) else clean(value, HEADER_MAX_CHARACTERS)
        )
    return shown


@lru_cache(maxsize=1024)
def _header_name(name: str) -> tuple[str, bool]:
    key = clean(name, 100)
    return key, key in SECRET_HEADERS or any(part in key for part in SECRET_PARTS)


def location(answer: Answer) -> str | None:
    """Where a redirect points, for people to read; never followed."""
    value = (answer.headers or {}).get("location")
    return clean(value, LOCATION_MAX_CHARACTERS) if value else None


def clean(text: str, limit: int) -> str:
    """Printable text of at most `limit` characters."""
    text = text[:limit]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else REPLACEMENT for c in text)
