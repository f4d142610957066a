"""Fetching a large file whole, over as many calls as that takes.

A call that was cut off is gone on with by `Range`, as long as each one brings something. It must be
the same file: by `If-Range` where the file has a strong validator, else by asking for a piece again
that is there already, which has to be the same, as has the length of the whole.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from batchbell.core.errors import ProviderError, ProviderUnavailable
from batchbell.core.results import Arrived
from batchbell.net.pace import Pace
from batchbell.threads import disk

FLUSH_BYTES = 2**20
OVERLAP_BYTES = 16 * 2**10
WALL_SECONDS = 6 * 3600.0
"""For one file, however fast it moves."""
PAUSES_SECONDS = (0.0, 1.0, 2.0)
"""Before calls that follow one that brought nothing; after these the download is given up."""
ANEW_MAX = 3
REFUSAL_MAX_BYTES = 64 * 2**10
STRONG_AFTER_SECONDS = 60.0
"""A date of change is no strong validator while the file may have changed twice in its second."""

CONTENT_RANGE = re.compile(r"bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE)
UNSATISFIED = re.compile(r"bytes\s+\*/(\d{1,18})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Body:
    """An answer whose head has come. Names of `headers` may have any case."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


Open = Callable[[Mapping[str, str], Pace], AbstractAsyncContextManager[Body]]
"""Makes a GET with these headers, whose body must keep the pace."""
Refuse = Callable[[int, Mapping[str, str], bytes], Exception]


class _Anew(Exception):
    """What is there is not the beginning of what comes: begin again."""


class _TooLarge(ProviderUnavailable):
    """Asking for the rest is of no use."""


class Download:
    """One file on its way to `target`, as it is sent: what is compressed stays so."""

    def __init__(
        self,
        open: Open,
        target: Path,
        *,
        refuse: Refuse,
        most_bytes: int,
        stall_seconds: float,
        plain: bool = False,
        wall_seconds: float = WALL_SECONDS,
    ) -> None:
        """`plain` asks for no compression: a file that is packed anew each time has no ranges."""
        self._open = open
        self._target = target
        self._refuse = refuse
        self._most_bytes = most_bytes
        self._plain = plain
        self._wall_seconds = wall_seconds
        self._pace = Pace(stall_seconds=stall_seconds)
        self._size = 0
        self._total: int | None = None
        self._validator: str | None = None
        self._etag: str | None = None
        self._known = b""
        """What must come again first."""
        self._arrived = Arrived()

    async def run(self) -> Arrived:
        """Fetch all of it. Raises ProviderError: what `refuse` makes of a bad status, or that it
        was cut off, too slow or too large."""
        try:
            async with asyncio.timeout(self._wall_seconds):
                await self._run()
        except TimeoutError:
            raise ProviderUnavailable(
                f"The file had not come after {self._wall_seconds:g} s."
            ) from None
        return self._arrived

    async def _run(self) -> None:
        furthest = fruitless = anew = 0
        while True:
            try:
                return await self._call()
            except _Anew:
                anew += 1
                self._forget()
                if anew > ANEW_MAX:
                    message = "The provider's file is another one each time that it is asked for."
                    raise ProviderUnavailable(message) from None
                continue
            except _TooLarge:
                raise
            except ProviderError:
                fruitless = 0 if self._size > furthest else fruitless + 1
                furthest = max(furthest, self._size)
                lost = not self._size or not self._may_resume() or self._pace.is_spent
                if lost or fruitless >= len(PAUSES_SECONDS):
                    raise
            await asyncio.sleep(PAUSES_SECONDS[fruitless])

    def _forget(self) -> None:
        self._size, self._total, self._validator, self._etag = 0, None, None, None

    def _may_resume(self) -> bool:
        return self._validator is not None or self._total is not None

    async def _call(self) -> None:
        headers = {"Accept-Encoding": "identity" if self._plain else "gzip"}
        self._known = b""
        if self._size:
            if self._validator is None:
                self._known = await disk(_tail, self._target, self._size)
            headers["Range"] = f"bytes={self._size - len(self._known)}-"
            if self._validator is not None:
                headers["If-Range"] = self._validator
        now = asyncio.get_running_loop().time
        begun, goes_on = now(), self._size > 0
        async with self._open(headers, self._pace) as body:
            if goes_on:  # the head of a first answer may take long: the file is made then
                self._pace.moved(0, waited_seconds=now() - begun)
            if not await self._accept(body):
                return
            await self._take(body)
        if self._total is not None and self._size < self._total:
            raise ProviderUnavailable("The provider's answer was cut off.")

    async def _accept(self, body: Body) -> bool:
        """Whether its bytes are to be taken, after what is there; False where all is there."""
        ranged = self._size > 0
        match body.status:
            case 206:
                self._go_on(body, asked=self._size - len(self._known))
            case 416 if ranged:
                found = UNSATISFIED.fullmatch(_header(body, "content-range") or "")
                if found is None or int(found[1]) != self._size:
                    raise _Anew
                return False
            case 200 | 203:
                self._begin(body)
            case status if 200 <= status < 400:
                raise ProviderUnavailable(f"The provider answered {status} in place of a file.")
            case status:
                raise self._refuse(status, body.headers, await _some(body))
        return True

    def _begin(self, body: Body) -> None:
        self._size, self._known = 0, b""
        length = _header(body, "content-length") or ""
        self._total = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
        self._etag = _header(body, "etag")
        self._validator = _strong(body)
        self._arrived = Arrived(
            encoding=_header(body, "content-encoding"),
            content_type=_header(body, "content-type"),
        )
        if self._total is not None and self._total > self._most_bytes:
            raise self._too_large()

    def _go_on(self, body: Body, *, asked: int) -> None:
        """Raises _Anew where the part is not the one that was asked for, or of another file."""
        found = CONTENT_RANGE.fullmatch((_header(body, "content-range") or "").strip())
        if found is None or int(found[1]) != asked:
            if not self._size:
                raise ProviderUnavailable("The provider sent a part that was not asked for.")
            raise _Anew
        etag = _header(body, "etag")
        total = None if found[3] == "*" else int(found[3])
        if None not in (etag, self._etag) and etag != self._etag:
            raise _Anew
        if not self._size:
            self._begin(body)
        if self._total is not None and total not in (None, self._total):
            raise _Anew
        self._total = total if total is not None else self._total

    async def _take(self, body: Body) -> None:
        """Write what comes, also where it is cut off in the end."""
        file = await disk(self._target.open, "r+b" if self._size else "wb")
        waiting: list[bytes] = []
        held = 0
        try:
            await disk(file.seek, self._size)
            async for chunk in body.chunks:
                piece = self._unknown(chunk)
                held += len(piece)
                if self._size + held > self._most_bytes:
                    raise self._too_large()
                waiting.append(piece)
                if held >= FLUSH_BYTES:
                    await disk(file.writelines, waiting)
                    self._size, held, waiting = self._size + held, 0, []
        finally:
            await disk(file.writelines, waiting)
            self._size += held
            await disk(file.truncate)
            await disk(file.close)

    def _unknown(self, chunk: bytes) -> bytes:
        """Without what must come again. Raises _Anew where something else does."""
        if not self._known:
            return chunk
        again = chunk[: len(self._known)]
        if not self._known.startswith(again):
            raise _Anew
        self._known = self._known[len(again) :]
        return chunk[len(again) :]

    def _too_large(self) -> _TooLarge:
        return _TooLarge(
            f"The provider's file is larger than {self._most_bytes:,} bytes:"
            " more than this batch can have. BATCHBELL_RESULTS_MAX_BYTES is the most for any."
        )


def _tail(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, size - OVERLAP_BYTES))
        return file.read(OVERLAP_BYTES)


def _header(body: Body, name: str) -> str | None:
    value = body.headers.get(name)
    return value.strip() if value else None


async def _some(body: Body) -> bytes:
    text = bytearray()
    async for chunk in body.chunks:
        text += chunk
        if len(text) >= REFUSAL_MAX_BYTES:
            break
    return bytes(text[:REFUSAL_MAX_BYTES])


def _strong(body: Body) -> str | None:
    """What `If-Range` may name; None where nothing says for certain that a file is the same."""
    etag = _header(body, "etag")
    if etag is not None:
        return etag if re.fullmatch(r'"[\x21\x23-\x7e]*"', etag) else None
    changed, now = _header(body, "last-modified"), _header(body, "date")
    try:
        age = parsedate_to_datetime(now or "") - parsedate_to_datetime(changed or "")
    except (ValueError, TypeError):
        return None
    return changed if age.total_seconds() >= STRONG_AFTER_SECONDS else None
