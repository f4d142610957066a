"""Server-sent events: a project's events to whoever follows them, as they are recorded.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Sequence,
)
from dataclasses import dataclass
from typing import Annotated

from fastapi import Header, Query, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from batchbell.core import payload
from batchbell.core.attachment import ResultsMode, wrapped
from batchbell.core.errors import AccessDenied, InvalidRequest, StoreUnavailable
from batchbell.core.ids import EVENT_ID, first_id
from batchbell.core.model import Dialect, EventType
from batchbell.core.stream import Window
from batchbell.storage import events
from batchbell.storage.engine import EVENTS, Signal, Store
from batchbell.storage.events import Recorded
from batchbell.web.auth import Gate
from batchbell.web.call import Caller
from batchbell.web.errors import RETRY_SECONDS, Code, error_response
from batchbell.web.openapi import text_answers
from batchbell.web.parameters import strict_router

MEDIA_TYPE = "text/event-stream"
STREAMS_MAX = 100
"""Streams that one process serves at once."""
PROJECT_STREAMS_MAX = 50
"""Of these, those of one project."""
IDS_PAGE = 1_000
PAGE = 50
"""Events that a stream holds in memory at once: a megabyte, at most."""
POLL_SECONDS = 5.0
"""How often to look without having been woken, and whether the key is still in force."""
LOOK_BACK_SECONDS = 1.0
"""The least time between two looks at the whole window, when events come thick and fast."""
LOOK_BACK_SHARE = 20
"""And this many times what the last one took."""
HEARTBEAT_SECONDS = 15.0
"""Shorter than what proxies wait for, and a sign of life for the reader."""
RETRY_MS = 1_000
"""How long a reader should wait before it connects again."""
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@dataclass(slots=True, eq=False)
class Place:
    """That of one stream among the others. The signal wakes it for new events, and to end."""

    project_id: str
    signal: Signal
    ended: bool = False

    def end(self) -> None:
        self.ended = True
        self.signal.set()


class Streams:
    """The open streams of one process, shared fairly by projects.

    What is committed for the channel wakes all of them; without one nothing does but their end.
    """

    def __init__(self, store: Store, *, channel: str | None = EVENTS) -> None:
        self.store = store
        self._channel = channel
        self.ended = False
        self._open: dict[str, list[Place]] = {}
        """By project, the newest last."""

    @property
    def number(self) -> int:
        return sum(map(len, self._open.values()))

    @property
    def full(self) -> bool:
        return self.number >= STREAMS_MAX

    def refusal(self, project_id: str) -> Response | None:
        """The answer where this project gets no place; None where there is one, or will be.

        Where every place is taken, a project that has fewer takes one of the project that has most:
        the newest one, whose reader connects again when there is room.
        """
        own = len(self._open.get(project_id, ()))
        if own >= PROJECT_STREAMS_MAX:
            return too_many(f"This project has {own} streams open")
        if not self.full:
            return None
        most = max(self._open.values(), key=len)
        if len(most) <= own + 1:
            return too_many(f"This process serves {STREAMS_MAX} streams")
        self._leave(most[-1])
        return None

    @contextlib.contextmanager
    def joined(self, project_id: str) -> Iterator[Place]:
        """Count as open for as long as the context lasts, or until the place is taken away."""
        signal = Signal() if self._channel is None else self.store.signal(self._channel)
        place = Place(project_id, signal, ended=self.ended)
        self._open.setdefault(project_id, []).append(place)
        try:
            yield place
        finally:
            self._leave(place)
            self.store.forget(place.signal)

    def _leave(self, place: Place) -> None:
        place.end()
        places = self._open.get(place.project_id, [])
        if place in places:
            places.remove(place)
        if not places:
            self._open.pop(place.project_id, None)

    def end(self) -> None:
        """Let every stream end now: the server stops."""
        self.ended = True
        for places in self._open.values():
            for place in places:
                place.end()


class Follower:
    """Reads a project's events as they are recorded, each once."""

    def __init__(
        self,
        store: Store,
        project_id: str,
        *,
        types: Collection[EventType] | None,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self.project_id = project_id
        self._types = types
        self._clock = clock
        self._window = Window(first_id("evt", at=clock()))
        self._looked_back_at: float | None = None
        self._owes_look_back = False
        self._rest_seconds = LOOK_BACK_SECONDS

    async def begin(self, after: str | None) -> str:
        """Go on after an event, with the window before it; or begin now. Returns from where.

        Raises StoreUnavailable.
        """
        if after is not None:
            self._window = Window(after)
            return after
        now = self._clock()
        async for ids in self._ids(self._window.start(now=now)):
            for id in ids:
                self._window.add(id, now=now)
        return self._window.newest

    async def look(self) -> AsyncIterator[Sequence[Recorded]]:
        """What came since the last look, a page at a time. Raises StoreUnavailable.

        What was not taken by then comes again with the next look.
        """
        now = self._clock()
        back = self._looks_back_in(now) <= 0
        async for ids in self._ids(self._window.start(now=now) if back else self._window.newest):
            new = [id for id in ids if self._window.is_new(id)]
            for at in range(0, len(new), PAGE):
                page = new[at : at + PAGE]
                yield await self._store.read(events.read_events, page, types=self._types)
                for id in page:
                    self._window.add(id, now=now)
        self._owes_look_back = not back
        if back:
            self._looked_back_at = self._clock()
            took = self._looked_back_at - now
            self._rest_seconds = max(LOOK_BACK_SECONDS, LOOK_BACK_SHARE * took)

    def _looks_back_in(self, now: float) -> float:
        """Seconds until a look takes the whole window again. A clock set back counts as over."""
        if self._looked_back_at is None or now < self._looked_back_at:
            return 0.0
        return self._looked_back_at + self._rest_seconds - now

    def pause_seconds(self) -> float:
        """How long to wait for a signal: less where the last look left the window alone."""
        if not self._owes_look_back:
            return POLL_SECONDS
        return min(max(0.0, self._looks_back_in(self._clock())), POLL_SECONDS)

    async def _ids(self, after: str) -> AsyncIterator[Sequence[str]]:
        while True:
            ids = await self._store.read(events.ids_after, self.project_id, after, limit=IDS_PAGE)
            yield ids
            if len(ids) < IDS_PAGE:
                return
            after = ids[-1]


class EventStream(Response):
    """One stream from its first byte to its last.

    It ends when the reader goes, the server stops, or `check_access` raises AccessDenied. While
    the database does not answer it goes on, and tells later what it could not read.
    """

    def __init__(
        self,
        streams: Streams,
        follower: Follower,
        *,
        after: str | None,
        clock: Callable[[], float],
        link_url: str,
        check_access: Callable[[], Awaitable[object]],
    ) -> None:
        super().__init__()
        self._link_url = link_url
        self._streams = streams
        self._follower = follower
        self._after = after
        self._clock = clock
        self._check_access = check_access
        self._wrote_at = clock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._streams.refusal(self._follower.project_id)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        with self._streams.joined(self._follower.project_id) as place:
            begun = await self._follower.begin(self._after)
            frames = self._frames(begun, place)
            response = StreamingResponse(frames, headers=HEADERS, media_type=MEDIA_TYPE)
            async with contextlib.aclosing(frames):
                await response(scope, receive, send)

    async def _frames(self, begun: str, place: Place) -> AsyncGenerator[bytes]:
        """Access is checked right before each event: a revoked key hears nothing more."""
        yield b"retry: %d\nid: %s\n\n" % (RETRY_MS, begun.encode())
        while True:
            with contextlib.suppress(StoreUnavailable):
                async for page in self._follower.look():
                    if await self._is_over(place):
                        return
                    if page:
                        yield b"".join(frame(event, self._link_url) for event in page)
                        self._wrote_at = self._clock()
            if await self._is_over(place):
                return
            if not 0 <= self._clock() - self._wrote_at < HEARTBEAT_SECONDS:
                yield b": heartbeat\n\n"
                self._wrote_at = self._clock()
            await place.signal.wait(self._follower.pause_seconds())

    async def _is_over(self, place: Place) -> bool:
        if place.ended:
            return True
        try:
            await self._check_access()
        except AccessDenied:
            return True
        except StoreUnavailable:
            return False  # whoever was let in stays in while nobody can be asked
        return False


def frame(event: Recorded, link_url: str) -> bytes:
    """One event, as an endpoint that wants a link to results would get it: one line of ASCII."""
    body = payload.dressed(
        event.body,
        dialect=Dialect.WATCH,
        watch_id=None,
        watch_metadata=None,
        results=wrapped(
            event.attachment, ResultsMode.LINK, base_url=link_url, now=event.recorded_at
        ),
        attachment=event.attachment,
    )
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event.id.encode(), event.type.encode(), body)


def too_many(why: str) -> Response:
    """The answer where there is no place."""
    return error_response(
        503,
        f"{why} already. Close one, or try again later.",
        code=Code.TOO_MANY_STREAMS,
        headers={"Retry-After": str(RETRY_SECONDS)},
    )


router = strict_router("events")

After = Annotated[
    str | None, Query(description="Go on after this event, known or not: its id has its time.")
]
Types = Annotated[
    list[str] | None, Query(description="Only events of these types; with commas, or repeated.")
]
LastEventId = Annotated[
    str | None, Header(description="As `after`, which it overrules: what browsers send.")
]


@router.get("/v1/stream", summary="Follow events as they are recorded", **text_answers(MEDIA_TYPE))
async def follow_events(
    call: Caller,
    request: Request,
    after: After = None,
    types: Types = None,
    last_event_id: LastEventId = None,
) -> Response:
    context, surface = call.context, call.surface
    gate = Gate(surface.keyring)

    async def check_access() -> None:
        if await gate.project_of(request.scope) != call.project_id:
            raise AccessDenied("The key is of another project now.", code=Code.INVALID_API_KEY)

    return EventStream(
        surface.streams,
        Follower(context.store, call.project_id, types=known_types(types), clock=context.clock),
        after=event_id(last_event_id or after),
        clock=context.clock,
        link_url=context.settings.link_url,
        check_access=check_access,
    )


def event_id(given: str | None) -> str | None:
    """What looks like the id of an event. Raises InvalidRequest."""
    if given and not re.fullmatch(EVENT_ID, given):
        raise InvalidRequest(
            "after must be the id of an event: evt_ and 25 letters and digits.", param="after"
        )
    return given or None


def known_types(given: Sequence[str] | None) -> frozenset[EventType] | None:
    """The types that are named; None where none is. Raises InvalidRequest."""
    words = [word.strip() for text in given or () for word in text.split(",")]
    wanted = frozenset(word for word in words if word)
    if unknown := wanted - set(EventType):
        raise InvalidRequest(
            f"There is no event type {min(unknown)[:80]!r}: use {', '.join(EventType)}.",
            param="types",
        )
    return frozenset(map(EventType, wanted)) or None
