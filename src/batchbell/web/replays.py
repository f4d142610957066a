"""Replays: their routes, and what a request may ask for."""

from __future__ import annotations

from fastapi import Request
from starlette.responses import Response

from batchbell.api import replays as api
from batchbell.api.answers import made_of
from batchbell.api.lists import Page
from batchbell.api.replays import ReplayRequest
from batchbell.core import replay as core
from batchbell.core.replay import PACE, ReplayFilter, ReplayStatus
from batchbell.storage import replays
from batchbell.web.bodies import read, read_json
from batchbell.web.call import Call, Caller, answer, call_of, page_answer
from batchbell.web.openapi import answers, takes
from batchbell.web.parameters import LIMIT_DEFAULT, After, Limit, strict_router


def filter_of(wanted: ReplayRequest) -> ReplayFilter:
    """Which deliveries; failed ones by default."""
    return ReplayFilter(
        status=wanted.status or ReplayStatus.FAILED,
        endpoint_id=wanted.endpoint_id,
        event_id=wanted.event_id,
        since=wanted.since,
        until=wanted.until,
        types=tuple(dict.fromkeys(wanted.types or ())),
    )


def shown(found: core.Replay) -> api.Replay:
    return made_of(api.Replay, found, found.filter)


router = strict_router("replays")


@router.post(
    "/v1/replays",
    summary="Send many deliveries again, or count them",
    openapi_extra=takes(ReplayRequest),
    **answers(
        api.Replay,
        404,
        413,
        status=201,
        says="Begun.",
        more={200: (api.ReplayCounts, "A dry run: what it would do.")},
    ),
)
async def create_replay(request: Request) -> Response:
    call = await call_of(request)
    wanted = read(ReplayRequest, await read_json(request))
    counted = await _count(call, wanted)
    if wanted.dry_run:
        return answer(made_of(api.ReplayCounts, counted))
    made = await call.context.store.write(
        replays.create,
        call.project_id,
        filter_of(wanted),
        counted,
        as_new=bool(wanted.as_new),
        enable=bool(wanted.enable),
        pace=wanted.pace or PACE,
        mint=call.context.mint,
        now=call.context.clock(),
    )
    return answer(shown(made), 201)


async def _count(call: Call, wanted: ReplayRequest) -> replays.Counted:
    return await call.context.store.read(
        replays.count,
        call.project_id,
        filter_of(wanted),
        enable=bool(wanted.enable),
        now=call.context.clock(),
    )


@router.get(
    "/v1/replays",
    summary="List replays, newest first",
    **answers(Page[api.Replay], 404),
)
async def list_replays(call: Caller, limit: Limit = LIMIT_DEFAULT, after: After = None) -> Response:
    page = await call.page(replays.list_replays, limit=limit, after=after)
    return page_answer([shown(r) for r in page.items], page)


@router.get("/v1/replays/{replay_id}", summary="One replay", **answers(api.Replay, 404))
async def get_replay(call: Caller, replay_id: str) -> Response:
    found = await call.context.store.read(replays.get_replay, call.project_id, replay_id)
    return answer(shown(found))


@router.post(
    "/v1/replays/{replay_id}/cancel",
    summary="Walk no further; what was made due stays so",
    **answers(api.Replay, 404),
)
async def cancel_replay(call: Caller, replay_id: str) -> Response:
    ended = await call.context.store.write(
        replays.cancel, call.project_id, replay_id, now=call.context.clock()
    )
    return answer(shown(ended))
