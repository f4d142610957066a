"""Submissions: requests that are handed in here, and told of as one batch."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header, Request
from starlette.responses import Response

from batchbell.files.scratch import scratch_folder
from batchbell.files.shelf import scratch_of
from batchbell.storage import submissions
from batchbell.threads import heavy
from batchbell.web import shapes, submission_shapes
from batchbell.web.api.cursors import LIMIT_DEFAULT, After, Limit
from batchbell.web.api.results import Wish, results_of
from batchbell.web.calling import Caller, answer, call_of, page_answer
from batchbell.web.contract import answers, file_answers, takes
from batchbell.web.parameters import strict_router
from batchbell.web.receiving import receive
from batchbell.web.repeating import HEADER, REPLAYED, WORD_MAX, key_of, key_word
from batchbell.web.submission_shapes import SubmissionRequest, describe
from batchbell.web.submitting import read_wish, submit

router = strict_router("submissions")

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias=HEADER,
        description=f"1 to {WORD_MAX} visible ASCII characters. The same call again, with the same"
        " key, makes nothing, and is answered with the submission that is there.",
    ),
]
"""For the description; `key_word` reads it."""


def _bodies() -> dict[str, Any]:
    """JSON lines and forms beside JSON, and what else is wished for in the query."""
    extra = takes(SubmissionRequest)
    extra["parameters"] = [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}}
        for name in SubmissionRequest.__struct_fields__
        if name != "requests"
    ]
    lines = {"schema": {"type": "string"}}
    form = {
        "schema": {
            "type": "object",
            "properties": {"file": {"type": "string", "format": "binary"}},
            "required": ["file"],
        }
    }
    content = extra["requestBody"]["content"]
    content["application/jsonl"], content["multipart/form-data"] = lines, form
    return extra


@router.post(
    "/v1/submissions",
    summary="Hand in requests, to be told when all of them are answered",
    openapi_extra=_bodies(),
    **answers(
        submission_shapes.Submission, 404, 409, 413, 422, status=201, says="It is on its way."
    ),
)
async def create_submission(request: Request, idempotency_key: IdempotencyKey = None) -> Response:
    call = await call_of(request)
    word = key_word(request)
    context = call.context
    accounts = await call.accounts()
    async with scratch_folder(scratch_of(context.shelf)) as folder:
        file = folder / "requests"
        most = context.settings.submission_max_bytes
        body = await receive(request, file, most=most)
        wish = read_wish(call, body, accounts)
        key = None if word is None else await heavy(call.project_id, key_of, word, body, file)
        taken = await submit(call, wish, file, accounts, key)
    return answer(describe(taken.submission), 201, REPLAYED if taken.replayed else None)


@router.get(
    "/v1/submissions",
    summary="List submissions, newest first",
    **answers(shapes.Page[submission_shapes.Submission], 404),
)
async def list_submissions(
    call: Caller, limit: Limit = LIMIT_DEFAULT, after: After = None
) -> Response:
    page = await call.page(submissions.list_submissions, limit=limit, after=after)
    return page_answer(page, [describe(s) for s in page.items], [s.id for s in page.items])


@router.get(
    "/v1/submissions/{submission_id}",
    summary="One submission, with its parts",
    **answers(submission_shapes.Submission, 404),
)
async def get_submission(call: Caller, submission_id: str) -> Response:
    found = await call.context.store.read(
        submissions.get_submission, call.project_id, submission_id
    )
    return answer(describe(found))


@router.post(
    "/v1/submissions/{submission_id}/cancel",
    summary="Cancel what runs, and hand nothing more in",
    **answers(submission_shapes.Submission, 404),
)
async def cancel_submission(call: Caller, submission_id: str) -> Response:
    context = call.context
    found = await context.store.write(
        submissions.cancel, call.project_id, submission_id, now=context.clock()
    )
    return answer(describe(found))


@router.get(
    "/v1/submissions/{submission_id}/results",
    summary="The results of all parts, in the order of the requests",
    **file_answers(404, 409, 502),
)
async def get_results(call: Caller, request: Request, submission_id: str, wish: Wish) -> Response:
    found = await call.context.store.read(
        submissions.get_submission, call.project_id, submission_id
    )
    return await results_of(call, request, found.id, wish)
