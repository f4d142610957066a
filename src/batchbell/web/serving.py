"""Handing out merged results: whole, in part, compressed, or only some of the lines."""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from batchbell.core.results import Results
from batchbell.files.lines import Fate, answer, whole_lines
from batchbell.files.shelf import Shelf
from batchbell.web.faults import Code, error_response

MEDIA_TYPE = "application/jsonl"
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
GZIP_WINDOW = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes from `start` up to, and without, `end`."""

    start: int
    end: int


class NotSatisfiable(Exception):
    """The file has nothing of the range that was asked for."""


def asked_span(header: str | None, size: int) -> Span | None:
    """What a Range header asks for; None for the whole, and for what we need not understand.

    Several ranges at once are answered with the whole, as a server may. Raises NotSatisfiable.
    """
    match = RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.group(1, 2) == ("", ""):
        return None
    first, last = match.group(1, 2)
    if first == "":
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    if start >= size or start >= end:
        raise NotSatisfiable
    return Span(start, end)


def response(request: Request, found: Results, shelf: Shelf, *, fate: Fate | None) -> Response:
    """The answer to a GET or HEAD of results that are there."""
    assert found.tally is not None
    size = found.tally.size
    if fate is not None:
        lines = _only(shelf.read(found.name), fate)
        return _streamed(request, lines, {"Content-Disposition": _named(found)})
    etag = f'"{found.id}-{size}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Content-Disposition": _named(found),
        "Cache-Control": "private, no-transform",
        "Vary": "Accept-Encoding",
    }
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    try:
        span = asked_span(_range_of(request, etag), size)
    except NotSatisfiable:
        there = {**headers, "Content-Range": f"bytes */{size}"}
        message = f"The results have {size:,} bytes: none of this range."
        return error_response(416, message, code=Code.RANGE_NOT_SATISFIABLE, headers=there)
    if span is None and _takes_gzip(request):
        return _streamed(request, _zipped(shelf.read(found.name)), _as_gzip(headers))
    return _part(request, found, shelf, span or Span(0, size), headers, whole=span is None)


def _part(
    request: Request,
    found: Results,
    shelf: Shelf,
    span: Span,
    headers: dict[str, str],
    *,
    whole: bool,
) -> Response:
    assert found.tally is not None
    headers["Content-Length"] = str(span.end - span.start)
    if not whole:
        headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{found.tally.size}"
    bytes_ = shelf.read(found.name, start=span.start, end=span.end)
    return _streamed(request, bytes_, headers, status=200 if whole else 206)


def _streamed(
    request: Request, chunks: AsyncIterator[bytes], headers: dict[str, str], status: int = 200
) -> Response:
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=MEDIA_TYPE)
    return StreamingResponse(chunks, status, headers, media_type=MEDIA_TYPE)


def _range_of(request: Request, etag: str) -> str | None:
    """A broken download is gone on with only where it is still the same file."""
    condition = request.headers.get("if-range")
    return request.headers.get("range") if condition in (None, etag) else None


def _takes_gzip(request: Request) -> bool:
    words = request.headers.get("accept-encoding", "").lower().replace(" ", "").split(",")
    return any(word == "gzip" or word.startswith("gzip;q=") for word in words) and (
        "gzip;q=0" not in words
    )


def _as_gzip(headers: dict[str, str]) -> dict[str, str]:
    return {**headers, "Content-Encoding": "gzip", "ETag": f"W/{headers['ETag']}"}


async def _zipped(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    zipper = zlib.compressobj(1, wbits=GZIP_WINDOW)
    async for chunk in chunks:
        if zipped := zipper.compress(chunk):
            yield zipped
    yield zipper.flush()


async def _only(chunks: AsyncIterator[bytes], fate: Fate) -> AsyncIterator[bytes]:
    """The lines of this fate."""
    async for lines in whole_lines(chunks):
        if chosen := [line + b"\n" for line in lines if _is(line, fate)]:
            yield b"".join(chosen)


def _is(line: bytes, fate: Fate) -> bool:
    said = answer(line)
    return said is not None and said.fate is fate


def _named(found: Results) -> str:
    return f'attachment; filename="{found.id}.jsonl"'
