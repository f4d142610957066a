"""The timeline of a batch: its route."""

from __future__ import annotations

from msgspec.structs import asdict
from starlette.responses import Response

from batchbell.api import timeline as api
from batchbell.api.answers import made_of
from batchbell.api.deliveries import Timings
from batchbell.core.timeline import Entry
from batchbell.storage.timeline import read_timeline
from batchbell.web.call import Caller, answer
from batchbell.web.deliveries import DAY_SECONDS
from batchbell.web.openapi import AccountQuery, answers
from batchbell.web.parameters import strict_router
from batchbell.web.paths import IdRoute
from batchbell.web.watches import named_account

router = strict_router("batches", route_class=IdRoute)


def shown(entry: Entry, *, since: float) -> api.TimelineEntry:
    """What it is about, and when that was."""
    values = asdict(entry)
    if entry.timings is not None:
        values["timings"] = made_of(Timings, entry.timings)
    return api.TimelineEntry(after_seconds=round(entry.at - since, 3), **values)


@router.get(
    "/v1/batches/{batch_id:id}/timeline",
    summary="The whole story of one batch: statuses, results, events, deliveries and attempts",
    **answers(api.Timeline, 404, 409),
)
async def get_timeline(call: Caller, batch_id: str, account: AccountQuery = None) -> Response:
    context = call.context
    owner = None
    if account is not None:
        owner = named_account(await call.accounts(), account, param="account")
    found = await context.store.read(
        read_timeline,
        call.project_id,
        batch_id,
        account_id=owner.id if owner else None,
        kept_since=context.clock() - context.settings.attempt_retention_days * DAY_SECONDS,
    )
    batch = found.batch
    return answer(
        api.Timeline(
            batch_id=batch.id,
            account=batch.account,
            data=tuple(shown(one, since=batch.registered_at) for one in found.entries()),
            left_out=tuple(found.left_out),
        )
    )
