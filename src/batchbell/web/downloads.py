"""Handing out merged results: as lines or tables, whole or in part, compressed or filtered."""

from __future__ import annotations

import asyncio
import contextlib
import re
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from batchbell.core.errors import InvalidRequest, ResultsError, ResultsGone, ResultsUnavailable
from batchbell.core.results import Results
from batchbell.files import tables
from batchbell.files.lines import Fate, answer, whole_lines
from batchbell.files.results_store import ResultsStore, scratch_of
from batchbell.files.scratch import scratch_folder
from batchbell.files.tables import Format, table_of
from batchbell.storage import results
from batchbell.threads import disk, stored, table
from batchbell.web.call import Context
from batchbell.web.errors import Code, error_response

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


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """What is handed out: a file of the results store."""

    name: str
    size: int
    """In bytes."""
    etag: str
    format: Format


def lines_of(found: Results) -> File:
    """All lines of results that are there."""
    assert found.tally is not None
    size = found.tally.size
    return File(name=found.name, size=size, etag=f'"{found.id}-{size}"', format=Format.JSONL)


def table_file(found: Results, format: Format, fate: Fate | None, size: int) -> File:
    """A table that is in the results store."""
    name = tables.table_of(found, format, fate)
    return File(name=name, size=size, etag=f'"{_called(name)}-{size}"', format=format)


def response(request: Request, file: File, results_store: ResultsStore) -> Response:
    """The answer to a GET or HEAD of a file, in whole or in part."""
    headers = {
        "ETag": file.etag,
        "Accept-Ranges": "bytes",
        "Content-Disposition": _named(file.name),
        "Cache-Control": "private, no-transform",
        "Vary": "Accept-Encoding",
    }
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    try:
        span = asked_span(_range_of(request, file.etag), file.size)
    except NotSatisfiable:
        there = {**headers, "Content-Range": f"bytes */{file.size}"}
        message = f"The results have {file.size:,} bytes: none of this range."
        return error_response(416, message, code=Code.RANGE_NOT_SATISFIABLE, headers=there)
    if span is None and _takes_gzip(request, file):
        return _streamed(
            request, _zipped(results_store.read(file.name)), _as_gzip(headers), file.format
        )
    return _part(
        request, file, results_store, span or Span(0, file.size), headers, whole=span is None
    )


def some_lines(
    request: Request, found: Results, results_store: ResultsStore, fate: Fate
) -> Response:
    """The lines of one fate: how long they are together is not known before."""
    lines = _only(results_store.read(found.name), fate, owner=found.project_id)
    headers = {"Content-Disposition": _named(found.name)}
    return _streamed(request, lines, headers, Format.JSONL)


def _part(
    request: Request,
    file: File,
    results_store: ResultsStore,
    span: Span,
    headers: dict[str, str],
    *,
    whole: bool,
) -> Response:
    headers["Content-Length"] = str(span.end - span.start)
    if not whole:
        headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{file.size}"
    bytes_ = results_store.read(file.name, start=span.start, end=span.end)
    return _streamed(request, bytes_, headers, file.format, status=200 if whole else 206)


def _streamed(
    request: Request,
    chunks: AsyncIterator[bytes],
    headers: dict[str, str],
    format: Format,
    status: int = 200,
) -> Response:
    if request.method == "HEAD":
        answer = Response(status_code=status, headers=headers, media_type=format.media_type)
        if "Content-Length" not in headers:
            del answer.headers["content-length"]  # of the empty body, where the true one is unknown
        return answer
    return StreamingResponse(chunks, status, headers, media_type=format.media_type)


def _range_of(request: Request, etag: str) -> str | None:
    """A broken download is gone on with only where it is still the same file."""
    condition = request.headers.get("if-range")
    return request.headers.get("range") if condition in (None, etag) else None


def _takes_gzip(request: Request, file: File) -> bool:
    """Parquet is compressed already, and a HEAD is to say how long the file is."""
    if request.method == "HEAD" or file.format is Format.PARQUET:
        return False
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


async def _only(chunks: AsyncIterator[bytes], fate: Fate, *, owner: str) -> AsyncIterator[bytes]:
    """The lines of this fate. They are read in threads: one may have many megabytes."""
    async for lines in whole_lines(chunks):
        if chosen := await stored(owner, _chosen, lines, fate):
            yield chosen


def _chosen(lines: Sequence[bytes], fate: Fate) -> bytes:
    return b"".join(line + b"\n" for line in lines if _is(line, fate))


def _is(line: bytes, fate: Fate) -> bool:
    said = answer(line)
    return said is not None and said.fate is fate


def _named(name: str) -> str:
    return f'attachment; filename="{_called(name)}"'


def _called(name: str) -> str:
    """Without the project's folder."""
    return name.rpartition("/")[2]


log = structlog.get_logger("batchbell.tables")

AT_ONCE = 2
"""Tables that one project has begun at a time: their lines are on this machine's disk."""
DAY_SECONDS = 86_400.0


async def check_installed(format: Format) -> None:
    """Raises InvalidRequest where this server cannot make such a table."""
    if not await disk(tables.is_installed):
        raise InvalidRequest(
            f"This server cannot make {format} of results: its operator must"
            " `pip install 'batchbell[tables]'` and start it again.",
            param="format",
            code=Code.TABLES_NOT_INSTALLED,
        )


class Tables:
    """Each is made once at a time, however many ask for it and however few wait for it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._under_way: dict[str, asyncio.Task[int]] = {}
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def size(
        self, found: Results, format: Format, fate: Fate | None, *, within_seconds: float
    ) -> int | None:
        """The bytes of a table that is there; None where it is still being made.

        Raises ResultsError.
        """
        name = table_of(found, format, fate)
        making = self._under_way.get(name)
        if making is None:
            making = asyncio.create_task(self._ensure(found, format, fate))
            self._under_way[name] = making
            making.add_done_callback(lambda task: self._ended(name, task))
        await asyncio.wait({making}, timeout=within_seconds)
        return making.result() if making.done() else None

    def _ended(self, name: str, task: asyncio.Task[int]) -> None:
        """Say what went wrong: perhaps nobody waits for it any more."""
        del self._under_way[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            unknown = None if isinstance(error, ResultsError) else error
            log.warning("table not made", table=name, error=repr(error), exc_info=unknown)

    async def _ensure(self, found: Results, format: Format, fate: Fate | None) -> int:
        results_store, name = self._context.results_store, table_of(found, format, fate)
        with contextlib.suppress(ResultsGone):
            return await results_store.size(name)
        async with self._turns.setdefault(found.project_id, asyncio.Semaphore(AT_ONCE)):
            await self._make(found, format, fate)
        if await self._is_over(found):
            await results_store.delete(name)
            raise ResultsGone(f"{found.id} was deleted while its table was made.")
        size = await results_store.size(name)
        log.info("table made", table=name, bytes=size)
        return size

    async def _make(self, found: Results, format: Format, fate: Fate | None) -> None:
        results_store = self._context.results_store
        async with scratch_folder(scratch_of(results_store)) as folder:
            lines, made = folder / "lines", folder / "table"
            await results_store.fetch(found.name, lines)
            try:
                await table(
                    found.project_id, tables.tabulate, lines, made, format=format, fate=fate
                )
            except OSError as error:
                raise ResultsUnavailable(f"The table cannot be written: {error}") from error
            await results_store.put(table_of(found, format, fate), made)

    async def _is_over(self, found: Results) -> bool:
        """Whether a collector may have deleted its files before the table was among them."""
        context = self._context
        again = await context.store.read(results.by_id, found.id)
        keep_seconds = context.settings.results_retention_days * DAY_SECONDS
        return again is None or again.is_over(now=context.clock(), keep_seconds=keep_seconds)
