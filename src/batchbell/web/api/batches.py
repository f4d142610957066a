"""Batches, in OpenAI's shape: its SDKs read them with our address as `base_url`."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from batchbell.core.model import Status
from batchbell.storage import batches, expunging
from batchbell.web import describing, shapes
from batchbell.web.api.cursors import LIMIT_DEFAULT, After, Limit
from batchbell.web.calling import Caller, answer, page_answer
from batchbell.web.contract import answers

router = APIRouter(tags=["batches"])


@router.get(
    "/v1/batches",
    summary="List batches, the last registered first",
    **answers(shapes.Page[shapes.Batch], 404),
)
async def list_batches(
    call: Caller, limit: Limit = LIMIT_DEFAULT, after: After = None, status: Status | None = None
) -> Response:
    page = await call.context.store.read(
        batches.list_batches, call.project_id, limit=limit, after=after, status=status
    )
    return page_answer(page, [describing.batch(b) for b in page.items], [b.id for b in page.items])


@router.get("/v1/batches/{batch_id}", summary="One batch", **answers(shapes.Batch, 404))
async def get_batch(call: Caller, batch_id: str) -> Response:
    found = await call.context.store.read(batches.get_batch, call.project_id, batch_id)
    return answer(describing.batch(found))


@router.post(
    "/v1/batches/{batch_id}/expunge",
    summary="Remove what is kept of an ended batch's payloads",
    **answers(shapes.Batch, 404, 409),
)
async def expunge_batch(call: Caller, batch_id: str) -> Response:
    context = call.context
    expunged = await context.store.write(
        expunging.expunge, call.project_id, batch_id, now=context.clock()
    )
    return answer(describing.batch(expunged))
