"""Following a server's events: what its frames mean, and when to connect again.

A stream goes on over broken connections and restarts of the server: it connects again, later and
later, and says after which event to go on. The server may send again what it sent shortly
before; that is left out here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import httpx2
import msgspec

from batchbell.client.errors import ServerUnavailable, ServerUnreachable
from batchbell.core.stream import Window

PATH = "/v1/stream"
SILENCE_SECONDS = 45.0
"""A server that is silent for so long has gone: it shows a sign of life every 15 s."""
FIRST_PAUSE_SECONDS = 0.5
LAST_PAUSE_SECONDS = 15.0

OnOpen = Callable[[], object]
OnLost = Callable[[ServerUnreachable | ServerUnavailable, float], object]


class StreamedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as a stream brings it. `body` is exactly what a webhook carries."""

    id: str
    type: str
    body: str

    @property
    def data(self) -> dict[str, Any]:
        """What the event is about: the `data` of its body."""
        found: dict[str, Any] = msgspec.json.decode(self.body)["data"]
        return found


class Following:
    """One stream over all its connections. Feed it lines; no sockets, no clock."""

    def __init__(
        self,
        *,
        after: str | None,
        types: Sequence[str] | None,
        on_open: OnOpen | None,
        on_lost: OnLost | None,
    ) -> None:
        self._types = types
        self._on_open = on_open
        self._on_lost = on_lost
        self._place = after
        self._window: Window | None = None
        self._frame: dict[str, str] = {}
        self._pause = 0.0
        self._opened = False

    @property
    def query(self) -> dict[str, str]:
        query = {"after": self._place, "types": ",".join(self._types or ())}
        return {name: value for name, value in query.items() if value}

    def opened(self) -> None:
        """The server has answered."""
        self._opened = True
        self._frame = {}
        if self._on_open is not None:
            self._on_open()

    def take(self, line: str) -> StreamedEvent | None:
        """One line of the answer; returns an event where it is whole, and did not come yet."""
        if line:
            name, _, value = line.partition(":")
            self._frame[name] = value.removeprefix(" ")
            return None
        frame, self._frame = self._frame, {}
        id = frame.get("id")
        if id is None:
            return None
        self._pause = 0.0
        if "data" not in frame:
            self._place = self._place or id
            return None
        return self._new(StreamedEvent(id=id, type=frame.get("event", ""), body=frame["data"]))

    def _new(self, event: StreamedEvent) -> StreamedEvent | None:
        if self._window is None:
            self._window = Window(event.id)
        elif not self._window.is_new(event.id):
            return None
        self._window.add(event.id)
        self._place = self._window.newest
        return event

    def lost(self, error: ServerUnreachable | ServerUnavailable, *, rand: float) -> float:
        """The connection is gone: seconds to wait before the next one.

        `rand` is from 0 to 1: readers of one server do not all come back at once. Raises the
        error where there was no connection yet.
        """
        if not self._opened:
            raise error
        self._pause = min(max(FIRST_PAUSE_SECONDS, self._pause * 2), LAST_PAUSE_SECONDS)
        pause = self._pause * (0.5 + rand / 2)
        if self._on_lost is not None:
            self._on_lost(error, pause)
        return pause


def check(url: str, answer: httpx2.Response) -> None:
    """Raises ServerUnreachable for the page of a proxy, or of another program."""
    if not answer.headers.get("content-type", "").startswith("text/event-stream"):
        raise ServerUnreachable(f"{url} sent no stream of events. Is its URL right?")


def ended(url: str) -> ServerUnreachable:
    """The server ended the stream: it stops, or the key is not in force any more."""
    return ServerUnreachable(f"{url} ended the stream.")


def dice() -> float:
    """From 0 to 1."""
    return random.random()  # noqa: S311 - it spreads readers, and guards nothing
