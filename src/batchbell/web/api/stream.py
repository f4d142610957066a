"""Following a project's events over one long answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from fastapi import Header, Query, Request
from starlette.responses import Response

from batchbell.core.errors import AccessDenied, InvalidRequest
from batchbell.core.ids import EVENT_ID
from batchbell.core.model import EventType
from batchbell.web.auth import Gate
from batchbell.web.calling import Caller
from batchbell.web.contract import text_answers
from batchbell.web.faults import Code
from batchbell.web.parameters import strict_router
from batchbell.web.streaming import MEDIA_TYPE, EventStream, Follower

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
