"""Replays: sending many deliveries again, as a job that can be watched and cancelled."""

from __future__ import annotations

from fastapi import Request
from starlette.responses import Response

from batchbell.storage import replays
from batchbell.web import replaying, shapes
from batchbell.web.api.cursors import LIMIT_DEFAULT, After, Limit
from batchbell.web.bodies import read_json
from batchbell.web.calling import Call, Caller, answer, call_of, page_answer
from batchbell.web.contract import answers, json_content, takes
from batchbell.web.parameters import strict_router

router = strict_router("replays")

CREATE = answers(replaying.Replay, 404, 413, status=201, says="Begun.")
CREATE["responses"][200] = {
    "description": "A dry run: what it would do.",
    "content": json_content(replaying.ReplayCounts),
}


@router.post(
    "/v1/replays",
    summary="Send many deliveries again, or count them",
    openapi_extra=takes(replaying.ReplayRequest),
    **CREATE,
)
async def create_replay(request: Request) -> Response:
    call = await call_of(request)
    wanted = replaying.wanted(await read_json(request))
    counted = await _count(call, wanted)
    if wanted.dry_run:
        return answer(replaying.describe_counts(counted))
    made = await call.context.store.write(
        replays.create,
        call.project_id,
        wanted.filter,
        counted,
        as_new=wanted.as_new,
        enable=wanted.enable,
        pace=wanted.pace,
        mint=call.context.mint,
        now=call.context.clock(),
    )
    return answer(replaying.describe(made), 201)


async def _count(call: Call, wanted: replaying.Wanted) -> replays.Counted:
    return await call.context.store.read(
        replays.count,
        call.project_id,
        wanted.filter,
        enable=wanted.enable,
        now=call.context.clock(),
    )


@router.get(
    "/v1/replays",
    summary="List replays, newest first",
    **answers(shapes.Page[replaying.Replay], 404),
)
async def list_replays(call: Caller, limit: Limit = LIMIT_DEFAULT, after: After = None) -> Response:
    page = await call.page(replays.list_replays, limit=limit, after=after)
    return page_answer(
        page, [replaying.describe(r) for r in page.items], [r.id for r in page.items]
    )


@router.get("/v1/replays/{replay_id}", summary="One replay", **answers(replaying.Replay, 404))
async def get_replay(call: Caller, replay_id: str) -> Response:
    found = await call.context.store.read(replays.get_replay, call.project_id, replay_id)
    return answer(replaying.describe(found))


@router.post(
    "/v1/replays/{replay_id}/cancel",
    summary="Walk no further; what was made due stays so",
    **answers(replaying.Replay, 404),
)
async def cancel_replay(call: Caller, replay_id: str) -> Response:
    ended = await call.context.store.write(
        replays.cancel, call.project_id, replay_id, now=call.context.clock()
    )
    return answer(replaying.describe(ended))
