"""Reading a form as it comes, part by part."""

from __future__ import annotations

from abc import ABC, abstractmethod

from python_multipart.multipart import MultipartParser, parse_options_header

from batchbell.core.errors import InvalidRequest

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
