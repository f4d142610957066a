"""Watches: who wants to hear of which batch."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from starlette.responses import Response

from batchbell.storage import watches
from batchbell.storage.watches import WatchDiffers
from batchbell.web import describing, shapes
from batchbell.web.api.cursors import LIMIT_DEFAULT, After, Limit
from batchbell.web.bodies import BULK_MAX_BYTES, Fields, read_json
from batchbell.web.calling import Call, Caller, answer, call_of, page_answer
from batchbell.web.contract import answers, json_content, takes
from batchbell.web.parameters import strict_router
from batchbell.web.registering import WatchesDiffer, WatchForm, watch_changes

router = strict_router("watches")

CREATE = answers(shapes.Watch, 409, 413, status=201, says="The watch, or the list of watches.")
for _status in (200, 201):
    CREATE["responses"][_status] = {
        "description": "Made." if _status == 201 else "All of it was there already.",
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [
                        json_content(kind)["application/json"]["schema"]
                        for kind in (shapes.Watch, shapes.WatchList)
                    ]
                }
            }
        },
    }


@router.post(
    "/v1/watches",
    summary="Watch one batch, or up to 1,000",
    openapi_extra=takes(shapes.WatchRequest, shapes.WatchesRequest, list[shapes.WatchRequest]),
    **CREATE,
)
async def create_watches(request: Request) -> Response:
    call = await call_of(request)
    body = await read_json(request, most=BULK_MAX_BYTES)
    if isinstance(body, list):
        return await _create_many(call, body, name="")
    if isinstance(body, dict) and isinstance(body.get("watches"), list):
        Fields(body, shapes.WatchesRequest).raise_problems()
        return await _create_many(call, body["watches"], name="watches")
    wanted = WatchForm(call.context, await call.accounts()).watch(body)
    try:
        registered = await call.surface.registrar.register(call.project_id, wanted)
    except WatchDiffers as error:
        raise WatchesDiffer(error, name=None) from error
    return answer(describing.watch(registered.watch), 201 if registered.created else 200)


async def _create_many(call: Call, items: list[Any], *, name: str) -> Response:
    wanted = WatchForm(call.context, await call.accounts()).watches(items, name=name)
    try:
        registered = await call.surface.registrar.register_all(call.project_id, wanted)
    except WatchDiffers as error:
        raise WatchesDiffer(error, name=name) from error
    created = sum(one.created for one in registered)
    made = [describing.watch(one.watch) for one in registered]
    return answer(shapes.WatchList(data=made, created=created), 201 if created else 200)


@router.get(
    "/v1/watches", summary="List watches, newest first", **answers(shapes.Page[shapes.Watch], 404)
)
async def list_watches(
    call: Caller, limit: Limit = LIMIT_DEFAULT, after: After = None, batch_id: str | None = None
) -> Response:
    page = await call.page(watches.list_watches, limit=limit, after=after, batch_id=batch_id)
    return page_answer(page, [describing.watch(w) for w in page.items], [w.id for w in page.items])


@router.get("/v1/watches/{watch_id}", summary="One watch", **answers(shapes.Watch, 404))
async def get_watch(call: Caller, watch_id: str) -> Response:
    found = await call.context.store.read(watches.get_watch, call.project_id, watch_id)
    return answer(describing.watch(found))


@router.post(
    "/v1/watches/{watch_id}",
    summary="Change what a watch is to hear from now on",
    openapi_extra=takes(shapes.WatchChanges),
    **answers(shapes.Watch, 404, 413),
)
async def change_watch(call: Caller, watch_id: str, request: Request) -> Response:
    changes = watch_changes(await read_json(request))
    changed = await call.context.store.write(
        watches.change_watch, call.project_id, watch_id, changes
    )
    return answer(describing.watch(changed))


@router.delete(
    "/v1/watches/{watch_id}",
    summary="Forget a watch, and what it was still to be told",
    **answers(shapes.Deleted, 404),
)
async def delete_watch(call: Caller, watch_id: str) -> Response:
    await call.context.store.write(watches.delete_watch, call.project_id, watch_id)
    return answer(shapes.Deleted(id=watch_id, object="watch.deleted"))
