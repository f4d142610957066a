"""Batches, in OpenAI's shape: its SDKs make and read them with our address as `base_url`.

What the provider must do is passed on to it; what it answers is written down here.
"""

from __future__ import annotations

import contextlib
from typing import Annotated

from fastapi import Query, Request
from starlette.responses import Response

from batchbell import failpoints
from batchbell.api.batches import BatchRequest
from batchbell.core import twins
from batchbell.core.deletion import Deletion
from batchbell.core.errors import (
    NotFound,
    ProviderUnavailable,
    StoreUnavailable,
)
from batchbell.core.model import Account, Batch, BatchKind, Snapshot, Status
from batchbell.core.results import Results, is_expunged
from batchbell.core.submission import standing
from batchbell.core.twins import NOT_ANSWERED, Doubt
from batchbell.providers.registry import profile_of
from batchbell.storage import accounts, batches, deletions, retention, submissions
from batchbell.storage import creations as stored
from batchbell.storage.creations import Creation
from batchbell.web import describing, shapes
from batchbell.web.bodies import BODY_MAX_BYTES, decode_json, read_body
from batchbell.web.call import ENCODER, Call, Caller, answer, call_of, page_answer
from batchbell.web.errors import Code, error_response
from batchbell.web.gateway import creations
from batchbell.web.gateway.creations import BatchForm, for_provider, tell_lost
from batchbell.web.gateway.proxy import (
    ACCOUNT_HEADER,
    Whole,
    account_for,
    account_of,
    account_of_file,
    ask,
    can_pass,
    gateway_of,
    pass_on,
    read,
)
from batchbell.web.openapi import AccountName, answers, passes, takes
from batchbell.web.parameters import LIMIT_DEFAULT, After, Limit, strict_router
from batchbell.web.paths import IdRoute

router = strict_router("batches", route_class=IdRoute)

Fresh = Annotated[
    bool, Query(description="`false`: never ask the provider, and answer what was seen last.")
]


@router.post(
    "/v1/batches",
    summary="Make a batch at the provider, and watch it",
    openapi_extra=takes(BatchRequest),
    **passes(413),
)
async def create_batch(request: Request, bb_account: AccountName = None) -> Response:
    call = await call_of(request)
    raw = await read_body(request, most=BODY_MAX_BYTES)
    body = decode_json(raw)
    wishes = await BatchForm(call.context, body).wishes(call.project_id)
    account = await account_of_file(call, request, body.get("input_file_id"))
    gateway_of(account)
    made = creations.intent(call, request, account, body, wishes)
    if made is not None:
        outcome = await creations.earlier(call, made)
        if outcome.batch is not None:
            return creations.found_again(outcome.batch, now=call.context.clock())
        if outcome.is_open:
            return creations.unclear("An equal call is not answered yet.", outcome)
        await call.context.store.write(stored.intend, made)
    told: Whole | ProviderUnavailable
    try:
        told = await ask(
            call,
            request,
            lambda gateway: gateway.batches(),
            account=account,
            body=for_provider(raw, body),
        )
    except ProviderUnavailable as error:
        told = error
    failpoints.reach(failpoints.AFTER_MADE)
    seen = await _seen(call, account, told) if isinstance(told, Whole) else None
    if isinstance(told, Whole) and seen is not None:
        kept = await call.surface.adopter.adopt(call.project_id, account, seen, wishes)
        if kept is not None:
            await _settle(call, made)
        return _with_extras(told, kept, now=call.context.clock())
    return await _not_made(call, account, made, told)


async def _settle(call: Call, made: Creation | None) -> None:
    """If this fails, the batch is looked for, and found to be known."""
    if made is not None:
        with contextlib.suppress(StoreUnavailable):
            await call.context.store.write(stored.settle, made.id)


async def _not_made(
    call: Call, account: Account, made: Creation | None, told: Whole | ProviderUnavailable
) -> Response:
    """No batch came back: whether one was made is looked into, where that is in doubt."""
    whole = told if isinstance(told, Whole) else None
    reached = not isinstance(told, ProviderUnavailable) or told.code == NOT_ANSWERED
    doubt = twins.doubt(None if whole is None else whole.status, reached=reached)
    if doubt is Doubt.NONE:
        await _settle(call, made)
        return _no_batch(told)
    outcome = (
        creations.Outcome(is_open=True, unlisted=True)
        if made is None
        else await creations.doubt(call, made, doubt)
    )
    if outcome.batch is not None:
        return creations.found_again(outcome.batch, now=call.context.clock())
    if whole is not None and whole.is_good:
        tell_lost(account, None, "The provider's answer shows no batch.")
    if whole is not None and (doubt is Doubt.SLIGHT or made is None):
        retry = "false" if made is None or outcome.unlisted else "true"
        return whole.response(more={creations.RETRY_HEADER: retry})
    if not outcome.is_open and not outcome.unlisted:
        return _no_batch(told)
    message = (
        told.message
        if isinstance(told, ProviderUnavailable)
        else f"The provider answered {told.status}, without a batch."
    )
    return creations.unclear(message, outcome)


def _no_batch(told: Whole | ProviderUnavailable) -> Response:
    if isinstance(told, Whole):
        return told.response()
    return error_response(502, told.message, code=Code.PROVIDER_UNAVAILABLE)


async def _seen(call: Call, account: Account, told: Whole) -> Snapshot | None:
    """The batch in an answer, if there is one."""
    gateway, profile = gateway_of(account), profile_of(account)

    def snapshot(body: bytes) -> Snapshot | None:
        return gateway.snapshot_in(body, profile)

    return await read(call, snapshot, told.body) if told.is_good else None


def _with_extras(told: Whole, kept: Batch | None, *, now: float) -> Response:
    """The provider's own object to the letter, and what we know beside it.

    It is not read again: the batch is there, and an error now would have it made twice. Where it
    has a `batchbell` of its own, ours comes later, and counts.
    """
    theirs = told.body.rstrip(b" \t\r\n")
    if kept is None or not theirs.endswith(b"}"):
        return told.response()
    ours = ENCODER.encode({"batchbell": describing.extras(kept, now=now)})
    return told.response(theirs[:-1] + b"," + ours[1:])


@router.get(
    "/v1/batches",
    summary="List batches, the last registered first",
    **answers(shapes.Page[shapes.Batch], 404),
)
async def list_batches(
    call: Caller, limit: Limit = LIMIT_DEFAULT, after: After = None, status: Status | None = None
) -> Response:
    page = await call.page(batches.list_batches, limit=limit, after=after, status=status)
    shown = await call.context.store.read(submissions.standing, page.items)
    now = call.context.clock()
    return page_answer(page, [describing.batch(b, now=now) for b in shown], [b.id for b in shown])


@router.get(
    "/v1/batches/{batch_id:id}",
    summary="One batch: as its provider has it while it runs, as it ended from then on",
    **passes(404, shape=shapes.Batch),
)
async def get_batch(
    call: Caller,
    request: Request,
    batch_id: str,
    fresh: Fresh = True,
    bb_account: AccountName = None,
) -> Response:
    account, known = await _find(call, request, batch_id)
    if known is None:
        if account is None or not fresh:
            raise NotFound("batch", batch_id)
        return await pass_on(call, request, lambda gateway: gateway.batch(batch_id))
    [known] = await call.context.store.read(submissions.standing, [known])
    now = call.context.clock()
    ours = known.status.ended or known.kind is BatchKind.JOINED
    if ours or account is None or not fresh or not can_pass(account):
        return answer(describing.batch(known, *await _merged(call, known), now=now))
    try:
        told = await ask(call, request, lambda gateway: gateway.batch(batch_id), account=account)
    except ProviderUnavailable:
        return answer(describing.batch(known, now=now))
    seen = await _seen(call, account, told)
    if seen is None or seen.id != known.id:
        return answer(describing.batch(known, now=now))
    return _with_extras(told, await _noted(call, account, seen, known), now=now)


@router.post(
    "/v1/batches/{batch_id:id}/cancel",
    summary="Ask the provider to cancel a batch",
    **passes(404),
)
async def cancel_batch(
    call: Caller, request: Request, batch_id: str, bb_account: AccountName = None
) -> Response:
    account, known = await _find(call, request, batch_id)
    now = call.context.clock()
    if known is not None and known.kind is BatchKind.JOINED:
        return answer(describing.batch(await _cancel_submission(call, known), now=now))
    account = account or await account_for(call, request)
    told = await ask(call, request, lambda gateway: gateway.cancel(batch_id), account=account)
    seen = await _seen(call, account, told)
    if seen is None or known is None or seen.id != known.id:
        return told.response()
    kept = await _noted(call, account, seen, known)
    await call.context.store.write(accounts.make_due, [account.id], now=now)
    return _with_extras(told, kept, now=now)


async def _cancel_submission(call: Call, known: Batch) -> Batch:
    """No provider knows of it: a worker cancels its parts."""
    store, now = call.context.store, call.context.clock()
    found = await store.write(submissions.cancel, call.project_id, known.id, now=now)
    return standing(found)


async def _merged(call: Call, known: Batch) -> tuple[Results | None, Deletion | None]:
    """The results, unless they were expunged with all else, and what becomes of the files."""
    found, deletion = await call.context.store.read(deletions.shown, known)
    return (None, None) if is_expunged(known, found) else (found, deletion)


@router.post(
    "/v1/batches/{batch_id:id}/expunge",
    summary="Remove what is kept of an ended batch's payloads",
    **answers(shapes.Batch, 404, 409),
)
async def expunge_batch(call: Caller, batch_id: str) -> Response:
    context = call.context
    expunged = await context.store.write(
        retention.expunge, call.project_id, batch_id, now=context.clock()
    )
    while await context.store.write(retention.strip_more, call.project_id, batch_id):
        pass  # each in a transaction of its own, so that nobody waits long for any
    return answer(describing.batch(expunged, now=context.clock()))


async def _find(call: Call, request: Request, batch_id: str) -> tuple[Account | None, Batch | None]:
    """The batch, if it is known, and the account to ask about it, if there is one."""
    named = ACCOUNT_HEADER in request.headers
    account = await account_for(call, request) if named else None
    try:
        known = await call.context.store.read(
            batches.get_batch,
            call.project_id,
            batch_id,
            account_id=account.id if account else None,
        )
    except NotFound:
        default = next(iter((await call.accounts()).values()), None)
        return account or default, None
    return account or await account_of(call, known), known


async def _noted(call: Call, account: Account, seen: Snapshot, known: Batch) -> Batch:
    """The batch as it is kept, once a new status that was seen here is written down."""
    if seen.status in (None, known.status):
        return known
    return await call.surface.adopter.note(call.project_id, account, seen)
