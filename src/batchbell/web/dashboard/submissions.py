"""Submissions with their parts, and what each of them waits for."""

from __future__ import annotations

from starlette.responses import Response

from batchbell.core.errors import InvalidRequest
from batchbell.storage import submissions
from batchbell.web import submissions as api
from batchbell.web.dashboard.filters import older
from batchbell.web.dashboard.formats import path
from batchbell.web.dashboard.page import Posted, Visit, done, page_router, show

router = page_router()

PAGE = 50


@router.get("/submissions")
async def list_page(visitor: Visit, after: str | None = None) -> Response:
    page = await visitor.call.page(submissions.list_submissions, limit=PAGE, after=after or None)
    return show(
        visitor,
        "submissions.html",
        section="submissions",
        title="Submissions",
        rows=[api.shown(one) for one in page.items],
        older=older(page, {}),
        is_first=after is None,
    )


@router.get("/submissions/{submission_id}")
async def submission_page(visitor: Visit, submission_id: str) -> Response:
    found = await visitor.call.context.store.read(
        submissions.get_submission, visitor.project.id, submission_id
    )
    return show(
        visitor,
        "submission.html",
        section="submissions",
        title=f"Submission {found.id}",
        one=api.shown(found),
        due={part.id: part.due_at for part in found.parts},
    )


@router.post("/submissions/{submission_id}")
async def act(visitor: Visit, form: Posted, submission_id: str) -> Response:
    if form.need("action") != "cancel":
        raise InvalidRequest("There is no such action.", param="action")
    await visitor.call.context.store.write(
        submissions.cancel, visitor.project.id, submission_id, now=visitor.now
    )
    note = "What runs is cancelled, and nothing more is submitted."
    return done(f"/dashboard/submissions/{path(submission_id)}", note)
