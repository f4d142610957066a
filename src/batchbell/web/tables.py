"""Results as tables: made when first asked for, and kept on the shelf beside their lines."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor

import structlog

from batchbell.core.errors import InvalidRequest, ResultsError, ResultsGone
from batchbell.core.results import Results
from batchbell.files import tabulating
from batchbell.files.formats import Format, table_of
from batchbell.files.lines import Fate
from batchbell.files.scratch import scratch_folder
from batchbell.files.shelf import scratch_of
from batchbell.storage import results
from batchbell.web.context import Context
from batchbell.web.faults import Code

log = structlog.get_logger("batchbell.tables")

AT_ONCE = 2
"""Tables being made: they share one thread, and the processor with everything else."""
DAY_SECONDS = 86_400.0


async def check_installed(format: Format) -> None:
    """Raises InvalidRequest where this server cannot make such a table."""
    if not await asyncio.to_thread(tabulating.is_installed):
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
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._hands = ThreadPoolExecutor(1, "batchbell-tables")

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
        shelf, name = self._context.shelf, table_of(found, format, fate)
        with contextlib.suppress(ResultsGone):
            return await shelf.size(name)
        async with self._turn:
            await self._make(found, format, fate)
        if await self._is_over(found):
            await shelf.delete(name)
            raise ResultsGone(f"{found.id} was deleted while its table was made.")
        size = await shelf.size(name)
        log.info("table made", table=name, bytes=size)
        return size

    async def _make(self, found: Results, format: Format, fate: Fate | None) -> None:
        shelf = self._context.shelf
        async with scratch_folder(scratch_of(shelf)) as folder:
            table = folder / "table"
            lines = shelf.read(found.name)
            await tabulating.tabulate(lines, table, format=format, fate=fate, hands=self._hands)
            await shelf.put(table_of(found, format, fate), table)

    async def _is_over(self, found: Results) -> bool:
        """Whether a collector may have deleted its files before the table was among them."""
        context = self._context
        again = await context.store.read(results.by_id, found.id)
        keep_seconds = context.settings.results_retention_days * DAY_SECONDS
        return again is None or again.is_over(now=context.clock(), keep_seconds=keep_seconds)
