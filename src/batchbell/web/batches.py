"""Batches, in OpenAI's shape: its SDKs make and read them with our address as `base_url`.

What the provider must do is passed on to it; what it answers is written down here.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query, Request
from msgspec.structs import asdict, fields
from starlette.responses import Response

from batchbell.api import batches as api
from batchbell.api import results as api_results
from batchbell.api.answers import made_of, whole
from batchbell.api.batches import BatchRequest
from batchbell.api.fields import BatchId, Text
from batchbell.api.lists import Page
from batchbell.core import alarms, payload
from batchbell.core.deletion import Deletion, DeletionState
from batchbell.core.errors import (
    InvalidRequest,
    NotFound,
    ProviderError,
    ProviderNotFound,
    ProviderRejected,
    ProviderUnavailable,
)
from batchbell.core.model import Account, Batch, BatchKind, BatchOutcome, Snapshot, Status
from batchbell.core.nearest import hint
from batchbell.core.results import Results, is_expunged
from batchbell.core.submission import standing
from batchbell.providers.profiles import PROFILES
from batchbell.providers.registry import profile_of, results_expire_at
from batchbell.storage import accounts, batch_lists, batches, deletions, retention, submissions
from batchbell.storage.batch_lists import BatchFilter
from batchbell.web.accounts import api_key_of, way_to
from batchbell.web.bodies import BODY_MAX_BYTES, decode_json, read_body
from batchbell.web.call import ENCODER, Call, Caller, answer, call_of, page_answer
from batchbell.web.errors import Code
from batchbell.web.gateway import creations
from batchbell.web.gateway.creations import for_provider, read_targets
from batchbell.web.gateway.proxy import (
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
from batchbell.web.idempotency import REPLAYED
from batchbell.web.openapi import AccountName, AccountQuery, answers, passes, takes
from batchbell.web.parameters import (
    LIMIT_DEFAULT,
    After,
    Limit,
    Since,
    Until,
    pairs,
    pairs_of,
    strict_router,
)
from batchbell.web.paths import IdRoute
from batchbell.web.watches import named_account

STAMPS = tuple(
    one.name for one in fields(api.Batch) if one.name.endswith("_at") and one.name != "created_at"
)


def shown(
    found: Batch,
    merged: Results | None = None,
    deletion: Deletion | None = None,
    *,
    now: float,
) -> api.Batch:
    """OpenAI's Batch object. `lost` is not a word of theirs: there it has `failed`."""
    seen = found.snapshot or Snapshot(id=found.id, provider_status="", status=None)
    lost = found.status is Status.LOST
    stamps = {name: seen.timestamps.get(name) for name in STAMPS}
    if lost:
        stamps["failed_at"] = whole(found.ended_at)
    return made_of(
        api.Batch,
        seen,
        endpoint=seen.endpoint or "",
        errors=_errors(seen, lost=lost),
        input_file_id=seen.input_file_id or "",
        completion_window=seen.completion_window or "",
        status="failed" if lost else found.status,
        created_at=seen.created_at or int(found.registered_at),
        request_counts=counts_of(seen),
        batchbell=_extras(found, merged, deletion, now=now),
        **stamps,
    )


def counts_of(seen: Snapshot) -> api.RequestCounts | None:
    """None while nothing is known."""
    counts = seen.counts
    if counts is None:
        return None
    return api.RequestCounts(total=counts.total, completed=counts.completed, failed=counts.failed)


def _errors(seen: Snapshot, *, lost: bool) -> api.BatchErrors | None:
    errors = [made_of(api.BatchError, problem) for problem in seen.problems]
    if lost:
        errors.append(api.BatchError(**payload.NOT_FOUND, param=None, line=None))
    return api.BatchErrors(data=tuple(errors)) if errors else None


def _extras(
    found: Batch,
    merged: Results | None = None,
    deletion: Deletion | None = None,
    *,
    now: float,
) -> api.BatchExtras:
    return made_of(
        api.BatchExtras,
        found,
        provider_status=found.snapshot and found.snapshot.provider_status,
        lost=found.status is Status.LOST,
        overdue=alarms.is_overdue(found, now),
        stalled=tuple(alarms.holding(found, now)),
        reason=_reason(found, now) or found.webhook_refused,
        last_progress_at=int(found.progress_at or found.registered_at),
        results_expire_at=whole(results_expire_at(found)),
        results=merged and _results(merged, deletion),
    )


def _reason(found: Batch, now: float) -> str | None:
    """Why the batch has not ended well, or does not get on; None where nothing is known of it."""
    if found.status is Status.LOST:
        return payload.NOT_FOUND["message"]
    if found.status is Status.FAILED:
        problems = found.snapshot.problems if found.snapshot else ()
        return next((p.message for p in problems if p.message), None)
    if found.status.ended:
        return None
    reasons = [found.reason] if found.reason else []
    return " ".join([*reasons, *alarms.reasons(found, now)]) or None


NO_COUNTS = dict.fromkeys(
    ("lines", "bytes", "succeeded", "failed", "not_run", "in_input_order", "usage", "notes")
)


def _results(found: Results, deletion: Deletion | None) -> api_results.Results:
    files, tally = _provider_files(deletion), found.tally
    if tally is None:
        return made_of(api_results.Results, found, provider_files=files, **NO_COUNTS)
    return made_of(
        api_results.Results,
        found,
        tally,
        bytes=tally.size,
        usage={model: api_results.Tokens(**asdict(used)) for model, used in tally.usage.items()},
        reason=None,
        provider_files=files,
    )


def _provider_files(found: Deletion | None) -> api_results.ProviderFiles:
    if found is None:
        found = Deletion(state=DeletionState.KEPT, reason=None, due_at=None, ended_at=None)
    deleted_at = whole(found.ended_at) if found.state is DeletionState.DELETED else None
    return made_of(api_results.ProviderFiles, found, deleted_at=deleted_at)


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
    targets = await read_targets(call.context, body, call.project_id)
    account = await account_of_file(call, request, body.get("input_file_id"))
    gateway_of(account)
    made = None
    if named := creations.asked_of(body):
        asked, fingerprint = named
        made = creations.intent(
            call, request, account, asked, fingerprint=fingerprint, targets=targets
        )
    found = await creations.create(
        call,
        account,
        made,
        targets,
        send=lambda: ask(
            call,
            request,
            lambda gateway: gateway.batches(),
            account=account,
            body=for_provider(raw, body),
        ),
        seen_in=lambda reply: _seen(call, account, reply),
    )
    now = call.context.clock()
    if isinstance(found, Batch):
        return answer(shown(found, now=now), headers=REPLAYED)
    if isinstance(found, Response):
        return found
    return _with_extras(found.reply, found.kept, now=now)


async def _seen(call: Call, account: Account, reply: Whole) -> Snapshot | None:
    """The batch in an answer, if there is one."""
    gateway, profile = gateway_of(account), profile_of(account)

    def snapshot(body: bytes) -> Snapshot | None:
        return gateway.snapshot_in(body, profile)

    return await read(call, snapshot, reply.body) if reply.is_good else None


def _with_extras(reply: Whole, kept: Batch | None, *, now: float) -> Response:
    """The provider's own object to the letter, and what we know beside it.

    It is not read again: the batch is there, and an error now would have it made twice. Where it
    has a `batchbell` of its own, ours comes later, and counts.
    """
    theirs = reply.body.rstrip(b" \t\r\n")
    if kept is None or not theirs.endswith(b"}"):
        return reply.response()
    ours = ENCODER.encode({"batchbell": _extras(kept, now=now)})
    return reply.response(theirs[:-1] + b"," + ours[1:])


METADATA = pairs("metadata", "Only those that have this pair: `metadata[job]=nightly`.")


def batch_filter(
    request: Request,
    *,
    id: Annotated[BatchId | None, Query(description="How their ids begin.")] = None,
    status: Status | None = None,
    outcome: BatchOutcome | None = None,
    provider: Annotated[Text | None, Query(description="By the name of a provider.")] = None,
    account: Annotated[Text | None, Query(description="By the name of an account.")] = None,
    model: Annotated[Text | None, Query(description="The `model` that they show.")] = None,
    since: Since = None,
    until: Until = None,
    ended_since: Since = None,
    ended_until: Until = None,
) -> BatchFilter:
    """What a list of batches, or of submissions, is asked for. Raises InvalidRequest."""
    if provider is not None and provider not in PROFILES:
        raise InvalidRequest(
            f"There is no provider {provider!r}. {hint(provider, PROFILES)}", param="provider"
        )
    return BatchFilter(
        begins=id,
        status=status,
        outcome=outcome,
        provider=provider,
        account=account,
        model=model,
        metadata=pairs_of(request, "metadata"),
        since=since,
        until=until,
        ended_since=ended_since,
        ended_until=ended_until,
    )


Filter = Annotated[BatchFilter, Depends(batch_filter)]


@router.get(
    "/v1/batches",
    summary="List batches, the last registered first",
    openapi_extra=METADATA,
    **answers(Page[api.Batch], 404),
)
async def list_batches(
    call: Caller, asked: Filter, limit: Limit = LIMIT_DEFAULT, after: After = None
) -> Response:
    page = await call.page(batch_lists.list_batches, limit=limit, after=after, filter=asked)
    found = await call.context.store.read(submissions.standing, page.items)
    now = call.context.clock()
    return page_answer([shown(batch, now=now) for batch in found], page)


@router.get(
    "/v1/batches/{batch_id:id}",
    summary="One batch: as its provider has it while it runs, as it ended from then on",
    **passes(404, shape=api.Batch),
)
async def get_batch(
    call: Caller,
    request: Request,
    batch_id: str,
    *,
    fresh: Fresh = True,
    account: AccountQuery = None,
    bb_account: AccountName = None,
) -> Response:
    owner, known = await find(call, batch_id, account or bb_account)
    if known is None:
        if owner is None or not fresh:
            raise NotFound("batch", batch_id)
        return await pass_on(call, request, lambda gateway: gateway.batch(batch_id))
    [known] = await call.context.store.read(submissions.standing, [known])
    now = call.context.clock()
    ours = known.status.ended or known.kind is BatchKind.JOINED
    if ours or owner is None or not fresh or not can_pass(owner):
        return answer(shown(known, *await merged_of(call, known), now=now))
    try:
        reply = await ask(call, request, lambda gateway: gateway.batch(batch_id), account=owner)
    except ProviderUnavailable:
        return answer(shown(known, now=now))
    seen = await _seen(call, owner, reply)
    if seen is None or seen.id != known.id:
        return answer(shown(known, now=now))
    return _with_extras(reply, await _noted(call, owner, seen, known), now=now)


@router.post(
    "/v1/batches/{batch_id:id}/cancel",
    summary="Ask the provider to cancel a batch",
    **passes(404),
)
async def cancel_batch(
    call: Caller,
    request: Request,
    batch_id: str,
    account: AccountQuery = None,
    bb_account: AccountName = None,
) -> Response:
    owner, known = await find(call, batch_id, account or bb_account)
    now = call.context.clock()
    if known is not None and known.kind is BatchKind.JOINED:
        return answer(shown(await _cancel_submission(call, known), now=now))
    owner = owner or await account_for(call, request)
    if not can_pass(owner):
        kept = await _cancel(call, owner, batch_id, known)
        return answer(shown(kept, now=call.context.clock()))
    reply = await ask(call, request, lambda gateway: gateway.cancel(batch_id), account=owner)
    seen = await _seen(call, owner, reply)
    if seen is None or known is None or seen.id != known.id:
        return reply.response()
    kept = await _noted(call, owner, seen, known)
    await call.context.store.write(accounts.make_due, [owner.id], now=now)
    return _with_extras(reply, kept, now=now)


async def cancel(call: Call, batch_id: str, account: str | None = None) -> Batch:
    """Cancel a batch that is known, and return it as it is then. Raises NotFound."""
    owner, known = await find(call, batch_id, account)
    if known is None or owner is None:
        raise NotFound("batch", batch_id)
    if known.kind is BatchKind.JOINED:
        return await _cancel_submission(call, known)
    return await _cancel(call, owner, batch_id, known)


async def _cancel(call: Call, owner: Account, batch_id: str, known: Batch | None) -> Batch:
    """For whoever needs no answer that is the provider's own to the letter."""
    key = await api_key_of(call.context, owner)
    try:
        async with way_to(call.context, owner, key) as provider:
            seen = await provider.cancel(batch_id)
    except (ProviderNotFound, ProviderRejected) as error:
        status = 404 if isinstance(error, ProviderNotFound) else 409
        code = Code.NOT_FOUND if status == 404 else Code.CONFLICT
        raise InvalidRequest(error.message, code=code, status=status) from None
    except ProviderError as error:
        raise ProviderUnavailable(error.message) from None
    if known is None:
        return await call.surface.adopter.note(call.project_id, owner, seen)
    kept = await _noted(call, owner, seen, known)
    await call.context.store.write(accounts.make_due, [owner.id], now=call.context.clock())
    return kept


async def _cancel_submission(call: Call, known: Batch) -> Batch:
    """No provider knows of it: a worker cancels its parts."""
    store, now = call.context.store, call.context.clock()
    found = await store.write(submissions.cancel, call.project_id, known.id, now=now)
    return standing(found)


async def merged_of(call: Call, known: Batch) -> tuple[Results | None, Deletion | None]:
    """The results, unless they were expunged with all else, and what becomes of the files."""
    found, deletion = await call.context.store.read(deletions.shown, known)
    return (None, None) if is_expunged(known, found) else (found, deletion)


@router.post(
    "/v1/batches/{batch_id:id}/expunge",
    summary="Remove what is kept of an ended batch's payloads",
    **answers(api.Batch, 404, 409),
)
async def expunge_batch(call: Caller, batch_id: str) -> Response:
    return answer(shown(await expunge(call, batch_id), now=call.context.clock()))


async def expunge(call: Call, batch_id: str) -> Batch:
    """Remove what is kept of the payloads of a batch; returns it as it is then."""
    context = call.context
    expunged = await context.store.write(
        retention.expunge, call.project_id, batch_id, now=context.clock()
    )
    while await context.store.write(retention.strip_more, call.project_id, batch_id):
        pass  # each in a transaction of its own, so that nobody waits long for any
    return expunged


async def find(call: Call, batch_id: str, name: str | None) -> tuple[Account | None, Batch | None]:
    """The batch, if it is known, and the account to ask about it, if there is one.

    `name` is that of an account. Raises AmbiguousBatch, and InvalidRequest for an unknown name.
    """
    known_accounts = await call.accounts()
    account = None if name is None else named_account(known_accounts, name, param="account")
    try:
        known = await call.context.store.read(
            batches.get_batch,
            call.project_id,
            batch_id,
            account_id=account.id if account else None,
        )
    except NotFound:
        return account or next(iter(known_accounts.values()), None), None
    return account or await account_of(call, known), known


async def _noted(call: Call, account: Account, seen: Snapshot, known: Batch) -> Batch:
    """The batch as it is kept, once a new status that was seen here is written down."""
    if seen.status in (None, known.status):
        return known
    return await call.surface.adopter.note(call.project_id, account, seen)
