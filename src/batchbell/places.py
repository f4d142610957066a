"""Telling the other processes where this one keeps results.

A marker in the place itself says whether two processes share it: two paths may be one folder, and
one path on two machines may be two.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit, urlunsplit

import structlog

from batchbell.core import place as rules
from batchbell.core.errors import ResultsError, StoreError
from batchbell.core.place import Place
from batchbell.files.results_store import Folder, ResultsStore
from batchbell.storage import places
from batchbell.storage.engine import Store

NOTE_SECONDS = 60.0
"""How often a process says that it uses its place."""

log = structlog.get_logger("batchbell.places")


def name_of(results_store: ResultsStore, url: str) -> str:
    """What a place is called: a whole path, or a bucket's URL without anything secret."""
    if isinstance(results_store, Folder):
        return str(results_store.root)
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class Placing:
    """One process's place, and what it last found out about the others."""

    def __init__(
        self,
        store: Store,
        results_store: ResultsStore,
        url: str,
        *,
        marker: str,
        keep_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        """`marker` is written where the place has none; `keep_seconds` is how long results last."""
        self._store = store
        self._results_store = results_store
        self._name = name_of(results_store, url)
        self._marker = marker
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._said: str | None = None

    async def note(self) -> None:
        """Mark the place, and write that it is in use. Raises ResultsError and StoreError.

        A marker that was there before and is gone, as where a bucket deletes what is old, is
        written again.
        """
        self._marker = await self._results_store.mark(self._marker)
        now = self._clock()
        mine = Place(marker=self._marker, name=self._name, host=socket.gethostname(), seen_at=now)
        await self._store.write(places.note, mine)
        known = await self._store.read(places.list_places)
        if warning := rules.apart(known, now=now):
            self._say(warning, rules.in_use(known, now=now))
        elif former := rules.former(known, now=now, keep_seconds=self._keep_seconds):
            self._say("older results may be in a place that no process uses now", former)
        else:
            self._said = None

    async def keep_noting(self) -> None:
        """Note it again and again. What fails is logged once, and tried again."""
        while True:
            try:
                await self.note()
            except (ResultsError, StoreError) as error:
                self._say(f"the results place cannot be marked: {error}")
            await asyncio.sleep(NOTE_SECONDS)

    def _say(self, warning: str, found: Sequence[Place] = ()) -> None:
        if warning != self._said:
            log.warning(warning, mine=self._name, places=[str(place) for place in found])
        self._said = warning
