"""Live pages: a page is made anew while somebody looks, and sent where it has changed.

It is made once for all who look at the same of it, however many they are, and not at all when
nobody does. Between two makings it rests for much longer than one takes, so that open dashboards
leave the processor to others. Who may look is judged anew before each thing that is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from batchbell import __version__
from batchbell.core.errors import AccessDenied, BatchbellError, NotFound, StoreUnavailable
from batchbell.web.auth import Gate
from batchbell.web.call import Surface
from batchbell.web.stream import Place

MEDIA_TYPE = "text/event-stream"
PAGE_TYPE = "text/html"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
REST_SECONDS = 2.0
"""Between two makings of a page, at least."""
REST_SHARE = 30
"""And so many times what the last one took, for each page that is made: all of them together take a
thirtieth of the time, however many there are."""
REST_MOST_SECONDS = 30.0
HEARTBEAT_SECONDS = 15.0
"""Then the clock is sent. A page that hears nothing for three times as long connects again."""
RETRY_MS = 1_000

Handle = Callable[[Request], Coroutine[Any, Any, Response]]


@dataclass(frozen=True, slots=True)
class Sight:
    """What one visitor sees of a page."""

    same: Hashable
    """Equal for all who see the same, but for the token of their forms."""
    token: str


@dataclass(frozen=True, slots=True, eq=False)
class Viewer:
    """One who looks: where to wake them, how to make the page as they see it, and their token."""

    place: Place
    make: Callable[[], Awaitable[bytes]]
    token: str
    looks_since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Shown:
    """A page as it was at a moment."""

    frame: bytes
    token: str
    began_at: float

    def to(self, token: str) -> bytes:
        """The frame for whoever has this token."""
        if token == self.token:
            return self.frame
        return self.frame.replace(self.token.encode(), token.encode())


class Look:
    """One page, made again and again while it has viewers."""

    def __init__(self, looks: Looks) -> None:
        self.viewers: list[Viewer] = []
        self._looks = looks
        self._shown: Shown | None = None
        self._failure: StoreUnavailable | None = None
        self._wanted = asyncio.Event()
        self._making = asyncio.create_task(self._make(), name="batchbell-look")
        self._making.add_done_callback(self._ended)

    @property
    def is_over(self) -> bool:
        """Whether it is made no more: nobody looks, or the page is not there any more."""
        return self._making.done()

    def join(self, viewer: Viewer) -> None:
        """Look too, at once: what is shown may be older than what the viewer has seen."""
        self.viewers.append(viewer)
        self._wanted.set()

    def leave(self, viewer: Viewer) -> None:
        self.viewers.remove(viewer)
        if not self.viewers:
            self._making.cancel()

    def shown_to(self, viewer: Viewer) -> Shown | None:
        """The latest page if it is not from before they looked.

        Raises what ended the look, and StoreUnavailable while it cannot be made.
        """
        if self.is_over:
            self._making.result()
        if self._failure is not None:
            raise self._failure
        found = self._shown
        return found if found is not None and found.began_at >= viewer.looks_since else None

    async def _make(self) -> None:
        while True:
            self._wanted.clear()
            began_at, viewer = time.monotonic(), self.viewers[0]
            try:
                page = await viewer.make()
                self._shown = Shown(_frame("page", page.decode()), viewer.token, began_at)
                self._failure = None
            except StoreUnavailable as error:
                self._failure = error
            self._wake()
            rest = self._looks.rest_seconds(time.monotonic() - began_at)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._wanted.wait()

    def _wake(self) -> None:
        for viewer in self.viewers:
            viewer.place.signal.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # each viewer meets it by itself, if any is left
        self._wake()


class Looks:
    """What is looked at in this process."""

    def __init__(self) -> None:
        self._open: dict[Hashable, Look] = {}

    @contextlib.contextmanager
    def joined(self, sight: Sight, viewer: Viewer) -> Iterator[Look]:
        """Look for as long as the context lasts."""
        look = self._open.get(sight.same)
        if look is None or look.is_over:
            look = self._open[sight.same] = Look(self)
        look.join(viewer)
        try:
            yield look
        finally:
            look.leave(viewer)
            if not look.viewers and self._open.get(sight.same) is look:
                del self._open[sight.same]

    def rest_seconds(self, took_seconds: float) -> float:
        """How long a page is left alone that took so long to make."""
        rest = REST_SHARE * len(self._open) * took_seconds
        return min(max(REST_SECONDS, rest), REST_MOST_SECONDS)


class Stream(Response):
    """One page from when it was opened until nobody looks any more, or may not."""

    def __init__(self, request: Request, handle: Handle, sight: Sight) -> None:
        super().__init__()
        self._request = request
        self._handle = handle
        self._sight = sight
        self._surface: Surface = request.app.state.surface
        self._gate = Gate(self._surface.keyring)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        screens, project_id = self._surface.screens, scope["state"]["project_id"]
        refusal = screens.refusal(project_id)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        with screens.joined(project_id) as place:
            viewer = Viewer(place, self._page, self._sight.token)
            with self._surface.looks.joined(self._sight, viewer) as look:
                frames = self._frames(viewer, look)
                response = StreamingResponse(frames, headers=HEADERS, media_type=MEDIA_TYPE)
                async with contextlib.aclosing(frames):
                    await response(scope, receive, send)

    async def _frames(self, viewer: Viewer, look: Look) -> AsyncGenerator[bytes]:
        yield b"retry: %d\n\n" % RETRY_MS + self._clock() + _frame("version", __version__)
        place, wrote_at, sent = viewer.place, time.monotonic(), b""
        away = _frame("away", "")
        while not place.ended:
            try:
                shown = look.shown_to(viewer)
                await self._check_access()
                frame = sent if shown is None else shown.to(self._sight.token)
            except StoreUnavailable:  # whoever was let in stays in while nobody can be asked
                frame = away
            except BatchbellError:
                yield _frame("over", "")
                return
            if frame != sent:
                yield frame
                sent, wrote_at = frame, time.monotonic()
            elif time.monotonic() - wrote_at >= HEARTBEAT_SECONDS:
                yield self._clock()
                wrote_at = time.monotonic()
            await place.signal.wait(HEARTBEAT_SECONDS)

    def _clock(self) -> bytes:
        """What time it is here, by which pages say how long ago something was."""
        return _frame("clock", self._surface.context.clock())

    async def _page(self) -> bytes:
        """What is shown at this moment. Raises NotFound where it is no page, or one elsewhere."""
        scope = {**self._request.scope, "state": {**self._request.scope["state"], "live": True}}
        response = await self._handle(Request(scope))
        if response.media_type != PAGE_TYPE:
            raise NotFound("page", scope["path"])
        return bytes(response.body)

    async def _check_access(self) -> None:
        """Raises AccessDenied for who may not look any more."""
        scope = {**self._request.scope, "state": {}}
        if await self._gate.project_of(scope) != self._request.scope["state"]["project_id"]:
            raise AccessDenied("The key is of another project now.", code="invalid_api_key")


def _frame(event: str, data: str | float) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.encode(), json.dumps(data).encode())
