"""Replays: many deliveries sent again, and how far that is."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from batchbell.core.errors import InvalidRequest
from batchbell.core.replay import PACE, ReplayFilter, ReplayStatus
from batchbell.storage import replays
from batchbell.web.dashboard.filters import older, word_of
from batchbell.web.dashboard.formats import HOUR, path
from batchbell.web.dashboard.page import Form, Posted, Visit, Visitor, done, page_router, show

router = page_router()

PAGE = 50
TIMES = {"1": "the last hour", "24": "the last 24 hours", "168": "the last 7 days", "": "all times"}
"""By hours."""
KEPT = ("status", "hours", "enable")
"""Fields that a count hands on to the replay."""


@router.get("/replays")
async def list_page(visitor: Visit, after: str | None = None) -> Response:
    return await _show(visitor, after)


async def _show(
    visitor: Visitor,
    after: str | None = None,
    *,
    counted: replays.Counted | None = None,
    form: Form | None = None,
) -> Response:
    given: Mapping[str, str] = {"hours": "24"} if form is None else form
    page = await visitor.call.page(replays.list_replays, limit=PAGE, after=after or None)
    return show(
        visitor,
        "replays.html",
        section="replays",
        title="Replays",
        rows=page.items,
        statuses=list(ReplayStatus),
        times=TIMES,
        counted=counted,
        form={"status": "", "hours": "", "enable": "", **given},
        form_fields={name: given[name] for name in KEPT if name in given},
        older=older(page, {}),
        is_first=after is None,
    )


@router.post("/replays")
async def create(visitor: Visit, form: Posted) -> Response:
    context, enable = visitor.call.context, "enable" in form
    wanted = _wanted(visitor, form)
    counted = await context.store.read(
        replays.count, visitor.project.id, wanted, enable=enable, now=visitor.now
    )
    if form.need("action") == "count":
        return await _show(visitor, counted=counted, form=form)
    made = await context.store.write(
        replays.create,
        visitor.project.id,
        wanted,
        counted,
        as_new="as_new" in form,
        enable=enable,
        pace=PACE,
        mint=context.mint,
        now=visitor.now,
    )
    return done(f"/dashboard/replays/{path(made.id)}", f"{made.total:,} deliveries are sent again.")


def _wanted(visitor: Visitor, form: Form) -> ReplayFilter:
    hours = form.get("hours", "")
    if hours not in TIMES:
        raise InvalidRequest("There is no such time.", param="hours")
    return ReplayFilter(
        status=word_of(ReplayStatus, form.get("status", "")) or ReplayStatus.FAILED,
        since=visitor.now - float(hours) * HOUR if hours else None,
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
