"""Batches: the list, one batch with its whole story, and what can be done with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Query, Request
from starlette.responses import RedirectResponse, Response

from batchbell.api.batches import Batch as Answer
from batchbell.core import delivery
from batchbell.core.errors import AmbiguousBatch, InvalidRequest, NotFound
from batchbell.core.ids import ID_PATTERN
from batchbell.core.model import Batch, BatchKind, BatchOutcome, Status
from batchbell.core.results import Results, ResultsState
from batchbell.core.timeline import Timeline
from batchbell.files.lines import Fate
from batchbell.files.tables import Format
from batchbell.storage import accounts, batches, deliveries, submissions
from batchbell.storage.batch_lists import BatchFilter, list_batches
from batchbell.storage.timeline import read_timeline
from batchbell.web import batches as api
from batchbell.web import results as api_results
from batchbell.web.dashboard import formats, preview
from batchbell.web.dashboard.failure import page_in_place_of
from batchbell.web.dashboard.formats import path
from batchbell.web.dashboard.lists import PAGE, Asked, pairs_of, show_list, since, word_of
from batchbell.web.dashboard.page import Posted, Visit, Visitor, done, page_router, show
from batchbell.web.dashboard.story import steps_of
from batchbell.web.downloads import check_installed
from batchbell.web.results import Wanted

router = page_router()

DAY_SECONDS = 86_400.0


class Which(Asked):
    """Which batches a list holds, or which submissions."""

    q: str = ""
    """A whole id leads to its batch; what an id begins with finds all that do."""
    status: str = ""
    outcome: str = ""
    account: str = ""
    provider: str = ""
    model: str = ""
    metadata: str = ""
    hours: str = ""
    ended: str = ""
    """Within so many hours, too."""

    def filter(self, now: float) -> BatchFilter:
        """Raises InvalidRequest."""
        return BatchFilter(
            begins=self.q.strip() or None,
            status=word_of(Status, self.status, "status"),
            outcome=word_of(BatchOutcome, self.outcome, "outcome"),
            account=self.account or None,
            provider=self.provider or None,
            model=self.model.strip() or None,
            metadata=pairs_of(self.metadata),
            since=since(self.hours, now),
            ended_since=since(self.ended, now),
        )


@router.get("/batches")
async def list_page(visitor: Visit, asked: Annotated[Which, Query()]) -> Response:
    word = asked.q.strip()
    if word and await _is_there(visitor, word):
        return RedirectResponse(url_of(word), 303)
    page = await visitor.call.page(
        list_batches,
        limit=PAGE,
        after=asked.after or None,
        filter=asked.filter(visitor.now),
    )
    found = await visitor.call.context.store.read(submissions.standing, page.items)
    rows = [shown(visitor, one) for one in found]
    more = {"may_be_id": re.fullmatch(ID_PATTERN, word) is not None, **await choices(visitor)}
    return show_list(visitor, "batches", page, asked, rows=rows, **more)


async def choices(visitor: Visitor) -> dict[str, Sequence[str]]:
    """What a list of batches or of submissions may be chosen by."""
    known = await visitor.call.context.store.read(accounts.list_accounts, visitor.project.id)
    return {
        "statuses": list(Status),
        "outcomes": list(BatchOutcome),
        "accounts": [one.name for one in known],
        "providers": sorted({one.provider for one in known}),
    }


def url_of(batch_id: str) -> str:
    """The page of a batch."""
    return f"/dashboard/batches/{path(batch_id)}"


async def _is_there(visitor: Visitor, batch_id: str) -> bool:
    try:
        await visitor.call.context.store.read(batches.get_batch, visitor.project.id, batch_id)
    except AmbiguousBatch:
        return True
    except NotFound:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Shown:
    """A batch as the API answers it, with what is ours beside."""

    batch: Batch
    answer: Answer

    @property
    def is_submission(self) -> bool:
        return self.batch.kind is BatchKind.JOINED

    @property
    def is_cancellable(self) -> bool:
        return not self.batch.status.ended and self.batch.status is not Status.CANCELLING


def shown(visitor: Visitor, found: Batch) -> Shown:
    return Shown(found, api.shown(found, now=visitor.now))


@router.get("/batches/{batch_id:id}")
async def batch_page(
    visitor: Visit, batch_id: str, account: str | None = None, lines: str = ""
) -> Response:
    try:
        found = await _find(visitor, batch_id, account)
    except AmbiguousBatch as error:
        return show(
            visitor,
            "ambiguous.html",
            section="batches",
            title="Which one?",
            batch_id=batch_id,
            accounts=error.accounts,
        )
    [found] = await visitor.call.context.store.read(submissions.standing, [found])
    merged, deletion = await api.merged_of(visitor.call, found)
    fate = word_of(Fate, lines, "lines")
    timeline = await _timeline(visitor, found)
    return show(
        visitor,
        "batch.html",
        section="batches",
        title=found.id,
        one=Shown(found, api.shown(found, merged, deletion, now=visitor.now)),
        merged=merged,
        watches=timeline.watches,
        story=steps_of(timeline),
        reasons={
            sent.delivery.id: delivery.reason(sent.delivery, visitor.now) for sent in timeline.sent
        },
        left_out=timeline.left_out,
        preview=await _preview(visitor, found, merged, fate),
        can_fetch=await _can_fetch(visitor, found, merged),
        fate=fate,
        fates=list(Fate),
        formats=list(Format),
        query=f"?account={path(found.account)}" if account else "",
    )


async def _find(visitor: Visitor, batch_id: str, account: str | None) -> Batch:
    _, found = await api.find(visitor.call, batch_id, account)
    if found is None:
        raise NotFound("batch", batch_id)
    return found


async def _timeline(visitor: Visitor, found: Batch) -> Timeline:
    context = visitor.call.context
    return await context.store.read(
        read_timeline,
        visitor.project.id,
        found.id,
        account_id=found.account_id,
        kept_since=visitor.now - context.settings.attempt_retention_days * DAY_SECONDS,
    )


async def _preview(
    visitor: Visitor, found: Batch, merged: Results | None, fate: Fate | None
) -> preview.Preview | None:
    """None where there are no results, or they are not where they were kept."""
    if merged is None or merged.state is not ResultsState.READY:
        return None
    return await visitor.call.surface.previews.of(merged, fate)


async def _can_fetch(visitor: Visitor, found: Batch, merged: Results | None) -> bool:
    """Whether there is anything to ask for: results that nobody wanted yet, or that are gone."""
    if not found.status.ended:
        return False
    if merged is None or merged.state is ResultsState.FAILED:
        return True
    if merged.state is ResultsState.WAITING:
        return False
    return not await api_results.is_there(visitor.call, merged)


@router.get("/batches/{batch_id:id}/results")
async def download(
    visitor: Visit,
    request: Request,
    batch_id: str,
    *,
    account: str | None = None,
    format: str = "jsonl",
    lines: str = "",
) -> Response:
    kind = word_of(Format, format, "format") or Format.JSONL
    if kind is not Format.JSONL:
        await check_installed(kind)
    query = Wanted(word_of(Fate, lines, "lines"), kind)
    found = await api_results.results_of(visitor.call, request, batch_id, query, account)
    return found if found.status_code < 400 else page_in_place_of(found, request.scope)


@router.post("/batches/{batch_id:id}")
async def act(visitor: Visit, form: Posted, batch_id: str, account: str | None = None) -> Response:
    back = url_of(batch_id) + (f"?account={path(account)}" if account else "")
    call = visitor.call
    match form.need("action"):
        case "cancel":
            await api.cancel(call, batch_id, account)
            return done(back, "The provider was asked to cancel the batch.")
        case "expunge":
            await api.expunge(call, batch_id)
            return done(back, "What was kept of its payloads is removed.")
        case "fetch":
            await api_results.fetch(call, batch_id, account)
            return done(back, "The results are being fetched.")
        case "resend":
            sent = await call.context.store.write(
                deliveries.resend, visitor.project.id, form.need("event_id"), now=visitor.now
            )
            return done(back, f"Due now: {formats.deliveries(len(sent))}.")
        case _:
            raise InvalidRequest("There is no such action.", param="action")
