"""The results of a batch: for whoever holds a key, and for whoever holds a link."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request
from starlette.responses import Response

from batchbell.api import batches as api
from batchbell.core import links
from batchbell.core.errors import InvalidRequest, NotFound, ResultsGone
from batchbell.core.model import Batch
from batchbell.core.results import (
    AGAIN_SECONDS,
    EXPUNGED_AT,
    Results,
    ResultsState,
    is_expunged,
)
from batchbell.files.lines import Fate
from batchbell.files.tables import Format
from batchbell.storage import deletions, results
from batchbell.web import downloads
from batchbell.web.batches import find, shown
from batchbell.web.call import Call, Caller, answer
from batchbell.web.downloads import check_installed
from batchbell.web.errors import Code, error_response
from batchbell.web.openapi import AccountQuery, answers, file_answers
from batchbell.web.parameters import strict_router
from batchbell.web.paths import IdRoute

router = strict_router("results", route_class=IdRoute)

WAIT_SECONDS = 25.0
"""Shorter than what most clients and proxies wait for the first byte of an answer."""
LOOK_SECONDS = 0.5
RETRY_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of the lines, and as what."""

    fate: Fate | None
    format: Format


async def wanted(
    status: Annotated[Fate | None, Query(description="Lines of this fate only.")] = None,
    format: Annotated[Format, Query(description="JSON lines, or a table.")] = Format.JSONL,
) -> Wanted:
    """Of the query. Raises InvalidRequest for a table that cannot be made here."""
    if format is not Format.JSONL:
        await check_installed(format)
    return Wanted(status, format)


ResultsQuery = Annotated[Wanted, Depends(wanted)]


@router.get(
    "/v1/batches/{batch_id:id}/results",
    summary="The merged results of a batch, one line for each request",
    **file_answers(404, 409, 410, 502),
)
async def get_results(
    call: Caller,
    request: Request,
    batch_id: str,
    query: ResultsQuery,
    account: AccountQuery = None,
) -> Response:
    return await results_of(call, request, batch_id, query, account)


@router.head(
    "/v1/batches/{batch_id:id}/results",
    summary="How long the results are",
    **file_answers(404, 409, 410, 502),
)
async def head_results(
    call: Caller,
    request: Request,
    batch_id: str,
    query: ResultsQuery,
    account: AccountQuery = None,
) -> Response:
    return await results_of(call, request, batch_id, query, account)


@router.get(
    "/results/{results_id}",
    summary="The same, by the link that a webhook brought",
    **file_answers(404, 410, 502),
)
async def follow_link(
    call: Caller,
    request: Request,
    results_id: str,
    query: ResultsQuery,
    *,
    expires: str = "",
    signature: str = "",
) -> Response:
    found = await call.context.store.read(results.by_id, results_id)
    if found is None or not links.is_genuine(
        results_id, expires=expires, signature=signature, secret=found.secret
    ):
        raise NotFound("results", results_id)
    if call.context.clock() > int(expires):
        return error_response(
            410,
            "This link has expired; the results may still be had at"
            " /v1/batches/{id}/results with an API key.",
            code=Code.LINK_EXPIRED,
        )
    return await _hand_out(call, request, found, query)


@router.head(
    "/results/{results_id}",
    summary="How long the results of a link are",
    **file_answers(404, 410, 502),
)
async def head_link(
    call: Caller,
    request: Request,
    results_id: str,
    query: ResultsQuery,
    *,
    expires: str = "",
    signature: str = "",
) -> Response:
    return await follow_link(call, request, results_id, query, expires=expires, signature=signature)


async def results_of(
    call: Call, request: Request, batch_id: str, query: Wanted, account: str | None = None
) -> Response:
    """Those of a batch, or of a submission by its id; whole, in part, or of one fate."""
    batch = await _known(call, batch_id, account)
    return await _hand_out(call, request, await _of(call, batch), query)


async def _known(call: Call, batch_id: str, account: str | None) -> Batch:
    _, batch = await find(call, batch_id, account)
    if batch is None:
        raise NotFound("batch", batch_id)
    return batch


async def _of(call: Call, batch: Batch) -> Results:
    """Those of the batch; asking for them is wanting them, if nobody has yet."""
    store = call.context.store
    found = await store.read(results.of_key, batch.key)
    if is_expunged(batch, found):
        raise _gone(
            f"The results of batch {batch.id!r} were expunged. POST to this address, or run"
            " `batchbell results ID --refetch`, to fetch them again.",
            Code.RESULTS_EXPUNGED,
        )
    if found is not None:
        return found
    return await _want(call, batch)


async def _want(call: Call, batch: Batch) -> Results:
    """Have the results of a batch that has ended merged, or tried again."""
    store, context = call.context.store, call.context
    if not batch.status.ended:
        raise InvalidRequest(
            f"Batch {batch.id!r} has not ended: there are no results yet.",
            code=Code.NOT_ENDED,
            status=409,
        )
    await store.write(results.request, [batch], mint=context.mint, now=context.clock())
    found = await store.read(results.of_key, batch.key)
    if found is None:
        raise NotFound("results of batch", batch.id)
    return found


def _gone(message: str, code: Code) -> InvalidRequest:
    return InvalidRequest(message, code=code, status=410)


@router.post(
    "/v1/batches/{batch_id}/results",
    summary="Fetch the results of a batch, anew where they were given up or expunged",
    **answers(api.Batch, 404, 409, status=202),
)
async def fetch_results(call: Caller, batch_id: str, account: AccountQuery = None) -> Response:
    batch = await fetch(call, batch_id, account)
    there = await call.context.store.read(deletions.shown, batch)
    return answer(shown(batch, *there, now=call.context.clock()), 202)


async def fetch(call: Call, batch_id: str, account: str | None = None) -> Batch:
    """Have the results of a batch merged, anew where they were given up or are gone."""
    batch = await _known(call, batch_id, account)
    found = await _want(call, batch)
    if found.state is ResultsState.READY and not await is_there(call, found):
        await _ask_again(call, found, missing=True)
    return batch


async def _hand_out(call: Call, request: Request, found: Results, query: Wanted) -> Response:
    until = asyncio.get_running_loop().time() + WAIT_SECONDS
    if found.ended_at == EXPUNGED_AT:
        raise _gone("These results were expunged.", Code.RESULTS_EXPUNGED)
    found = await _asked(call, found)
    found = await _ready(call, found, until)
    if found.state is ResultsState.FAILED:
        return error_response(
            502,
            f"The results could not be merged: {found.reason} Ask again later: they are then"
            " tried again.",
            code=Code.RESULTS_FAILED,
            headers={"Retry-After": str(int(AGAIN_SECONDS))},
        )
    if found.state is ResultsState.WAITING:
        reason = f" The last try failed: {found.reason}" if found.reason else ""
        return _not_ready(f"The results are being merged.{reason}")
    if not await is_there(call, found):
        raise _gone(
            "The results were merged, and are not where they were kept. They are fetched anew if"
            " the provider still has its files: ask again in a minute.",
            Code.RESULTS_GONE,
        )
    if query.format is not Format.JSONL:
        return await _hand_out_table(call, request, found, query, until)
    if query.fate is not None:
        return downloads.some_lines(request, found, call.context.results_store, query.fate)
    return downloads.response(request, downloads.lines_of(found), call.context.results_store)


async def _asked(call: Call, found: Results) -> Results:
    """Have them tried again where they failed, wait for a later try, or are not there any more."""
    missing = found.state is ResultsState.READY and not await is_there(call, found)
    if found.state is ResultsState.READY and not missing:
        return found
    await _ask_again(call, found, missing=missing)
    return await call.context.store.read(results.by_id, found.id) or found


async def _ask_again(call: Call, found: Results, *, missing: bool) -> None:
    store, now = call.context.store, call.context.clock()
    if missing and await store.read(deletions.is_deleted, found.id):
        return  # the provider's files are gone too
    await store.write(results.ask_again, [found.id], now=now, missing=missing)


async def is_there(call: Call, found: Results) -> bool:
    """Whether the file is there whole: what was promised in the head must follow."""
    assert found.tally is not None
    try:
        return await call.context.results_store.size(found.name) == found.tally.size
    except ResultsGone:
        return False


async def _hand_out_table(
    call: Call, request: Request, found: Results, query: Wanted, until: float
) -> Response:
    left = max(0.0, until - asyncio.get_running_loop().time())
    tables = call.surface.tables
    size = await tables.size(found, query.format, query.fate, within_seconds=left)
    if size is None:
        return _not_ready("The table is being made.")
    file = downloads.table_file(found, query.format, query.fate, size)
    return downloads.response(request, file, call.context.results_store)


def _not_ready(why: str) -> Response:
    return error_response(
        503,
        f"{why} Ask again in a few seconds.",
        code=Code.RESULTS_NOT_READY,
        headers={"Retry-After": str(RETRY_SECONDS)},
    )


async def _ready(call: Call, found: Results, until: float) -> Results:
    """Wait for a merge that is under way, for some time."""
    loop = asyncio.get_running_loop()
    while found.state is ResultsState.WAITING and loop.time() < until:
        await asyncio.sleep(LOOK_SECONDS)
        again = await call.context.store.read(results.by_id, found.id)
        if again is None:
            raise NotFound("results", found.id)
        found = again
    return found
