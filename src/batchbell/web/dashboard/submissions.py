"""Submissions with their parts, and what each of them waits for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from batchbell.api.submissions import Submission as Answer
from batchbell.core.errors import InvalidRequest
from batchbell.core.submission import PartState, Submission
from batchbell.storage import submissions
from batchbell.web import submissions as api
from batchbell.web.dashboard.batches import Which, choices
from batchbell.web.dashboard.formats import path
from batchbell.web.dashboard.lists import PAGE, show_list
from batchbell.web.dashboard.page import Posted, Visit, done, page_router, show

router = page_router()


@router.get("/submissions")
async def list_page(visitor: Visit, asked: Annotated[Which, Query()]) -> Response:
    page = await visitor.call.page(
        submissions.list_submissions,
        limit=PAGE,
        after=asked.after or None,
        filter=asked.filter(visitor.now),
    )
    rows = [Shown(api.shown(one), _reason(one)) for one in page.items]
    return show_list(visitor, "submissions", page, asked, rows=rows, **await choices(visitor))


@dataclass(frozen=True, slots=True)
class Shown:
    """A submission as the API answers it, and why it waits."""

    answer: Answer
    reason: str | None


def _reason(found: Submission) -> str | None:
    """Its own, or that of the first part that waits."""
    waiting = (part.reason for part in found.parts if part.state is PartState.WAITING)
    return found.reason or next(filter(None, waiting), None)


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
