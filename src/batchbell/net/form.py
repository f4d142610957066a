"""One file as a body, by itself or in multipart form data, of a length known before it is sent.

aiohttp's own form hides how far it has come, so a limit on the pace has nowhere to sit; and without
a Content-Length it would send chunks, which some providers refuse.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import BinaryIO

from batchbell.threads import disk

CHUNK_BYTES = 256 * 2**10
ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})
"""As browsers write names in a form (WHATWG HTML, multipart/form-data)."""


class FileBody:
    """The file, and nothing else."""

    def __init__(self, content: BinaryIO, *, content_type: str) -> None:
        self._content = content
        size = os.fstat(content.fileno()).st_size
        self.headers = {"Content-Type": content_type, "Content-Length": str(size)}

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it, read as it is asked for."""
        while chunk := await disk(self._content.read, CHUNK_BYTES):
            yield chunk


class FileForm(FileBody):
    """The fields, then the file as the field `file`."""

    def __init__(self, content: BinaryIO, *, name: str, fields: Mapping[str, str]) -> None:
        boundary = secrets.token_hex(16)
        super().__init__(content, content_type=f"multipart/form-data; boundary={boundary}")
        self._head = _head(boundary, name=name, fields=fields)
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        size = len(self._head) + os.fstat(content.fileno()).st_size + len(self._tail)
        self.headers["Content-Length"] = str(size)

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it, read as it is asked for."""
        yield self._head
        async for piece in super().pieces():
            yield piece
        yield self._tail


def _head(boundary: str, *, name: str, fields: Mapping[str, str]) -> bytes:
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field.translate(ESCAPES)}"'
        f"\r\n\r\n{value}\r\n"
        for field, value in fields.items()
    ]
    file = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file";'
        f' filename="{name.translate(ESCAPES)}"\r\nContent-Type: application/jsonl\r\n\r\n'
    )
    return ("".join(parts) + file).encode()
