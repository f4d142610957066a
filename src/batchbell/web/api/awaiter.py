"""`POST /batch-awaiter`: the contract that Batchbell was first asked for."""

from __future__ import annotations

from fastapi import Request
from starlette.responses import Response

from batchbell.web import shapes
from batchbell.web.bodies import read_json
from batchbell.web.calling import answer, call_of
from batchbell.web.contract import answers, takes
from batchbell.web.parameters import strict_router
from batchbell.web.registering import WatchForm

router = strict_router("watches")

NEW = "Batch registered: the webhook is called when it ends."
KNOWN = "Batch already registered for this webhook: it is called once, when the batch ends."


@router.post(
    "/batch-awaiter",
    summary="Call a URL when a batch ends",
    openapi_extra=takes(shapes.AwaiterRequest),
    **answers(shapes.AwaiterAnswer, 413, status=201, says="Registered, now or before."),
)
async def await_batch(request: Request) -> Response:
    call = await call_of(request)
    body = await read_json(request)
    wanted = WatchForm(call.context, await call.accounts()).awaiter(body)
    registered = await call.surface.registrar.register(call.project_id, wanted)
    message = NEW if registered.created else KNOWN
    return answer(shapes.AwaiterAnswer(message=message, batch_id=wanted.batch_id), 201)
