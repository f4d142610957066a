"""Reading an upload: a form with a file in it."""

from __future__ import annotations

from typing import Any

from aiohttp import BodyPartReader, http_exceptions, web

from batchbell.sandbox.answers import ApiError
from batchbell.sandbox.gate import CHUNK_BYTES


async def parts_of(request: web.Request) -> tuple[str, bytes | None, dict[str, str]]:
    """The file's name and bytes, and the other fields. Raises ApiError (400)."""
    try:
        return await _parts(request)
    except (ValueError, http_exceptions.HttpProcessingError):
        raise ApiError(400, "This is no multipart/form-data.") from None


async def _parts(request: web.Request) -> tuple[str, bytes | None, dict[str, str]]:
    """The file's name and bytes, and the other fields."""
    fields: dict[str, str] = {}
    content: bytes | None = None
    filename = "upload"
    async for part in await _multipart(request):
        if not isinstance(part, BodyPartReader):
            continue
        if part.name == "file":
            filename, content = part.filename or filename, await _whole(part)
        else:
            fields[part.name or ""] = await part.text()
    return filename, content, fields


async def _whole(part: BodyPartReader) -> bytes:
    """However large: `read` would stop at the limit for JSON."""
    content = bytearray()
    while chunk := await part.read_chunk(CHUNK_BYTES):
        content += chunk
    return bytes(content)


async def _multipart(request: web.Request) -> Any:
    if not request.content_type.startswith("multipart/"):
        raise ApiError(400, "Send the file as multipart/form-data.")
    return await request.multipart()
