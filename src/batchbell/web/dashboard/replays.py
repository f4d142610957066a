"""Replays: many deliveries sent again, and how far that is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from batchbell.core.errors import InvalidRequest
from batchbell.core.replay import ReplayFilter, ReplayStatus
from batchbell.storage import replays
from batchbell.web.dashboard import formats
from batchbell.web.dashboard.formats import path
from batchbell.web.dashboard.lists import PAGE, Asked, show_list, since, word_of
from batchbell.web.dashboard.page import Form, Posted, Visit, Visitor, done, page_router, show

router = page_router()

TAKES: Mapping[ReplayStatus, str] = {
    ReplayStatus.FAILED: "what failed",
    ReplayStatus.HELD: "what was held while it was disabled",
    ReplayStatus.MISSING: "what was never made for it",
    ReplayStatus.ALL: "all of it, delivered or not",
}
"""In the words of a form."""
KEPT = ("status", "hours", "enable")
"""Fields that a count hands on to the replay."""


@router.get("/replays")
async def list_page(visitor: Visit, asked: Annotated[Asked, Query()]) -> Response:
    return await _show(visitor, asked)


async def _show(
    visitor: Visitor,
    asked: Asked,
    *,
    counted: replays.Counted | None = None,
    form: Form | None = None,
) -> Response:
    given: Mapping[str, str] = {"hours": "24"} if form is None else form
    page = await visitor.call.page(replays.list_replays, limit=PAGE, after=asked.after or None)
    return show_list(
        visitor,
        "replays",
        page,
        asked,
        statuses=TAKES,
        counted=counted,
        form={"status": "", "hours": "", "enable": "", **given},
        form_fields={name: given[name] for name in KEPT if name in given},
    )


@router.post("/replays")
async def create(visitor: Visit, form: Posted) -> Response:
    context, enable = visitor.call.context, "enable" in form
    wanted = _wanted(visitor, form)
    counted = await context.store.read(
        replays.count, visitor.project.id, wanted, enable=enable, now=visitor.now
    )
    if form.need("action") == "count":
        return await _show(visitor, Asked(), counted=counted, form=form)
    return await begin(visitor, wanted, counted, enable=enable)


async def begin(
    visitor: Visitor, wanted: ReplayFilter, counted: replays.Counted, *, enable: bool
) -> Response:
    """Send again what was counted, and go to the page that shows how far that is."""
    context = visitor.call.context
    made = await context.store.write(
        replays.create,
        visitor.project.id,
        wanted,
        counted,
        enable=enable,
        mint=context.mint,
        now=visitor.now,
    )
    note = f"To be sent again: {formats.deliveries(made.total)}."
    return done(f"/dashboard/replays/{path(made.id)}", note)


def _wanted(visitor: Visitor, form: Form) -> ReplayFilter:
    return ReplayFilter(
        status=word_of(ReplayStatus, form.get("status", ""), "status") or ReplayStatus.FAILED,
        since=since(form.get("hours", ""), visitor.now),
    )


@router.get("/replays/{replay_id}")
async def replay_page(visitor: Visit, replay_id: str) -> Response:
    found = await visitor.call.context.store.read(replays.get_replay, visitor.project.id, replay_id)
    return show(visitor, "replay.html", section="replays", title=f"Replay {found.id}", one=found)


@router.post("/replays/{replay_id}")
async def act(visitor: Visit, form: Posted, replay_id: str) -> Response:
    if form.need("action") != "cancel":
        raise InvalidRequest("There is no such action.", param="action")
    await visitor.call.context.store.write(
        replays.cancel, visitor.project.id, replay_id, now=visitor.now
    )
    note = "It goes no further. What was made due already is sent."
    return done(f"/dashboard/replays/{path(replay_id)}", note)
