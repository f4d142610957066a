"""Accounts: where batches are watched, and under whose credentials."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request
from starlette.responses import Response

from batchbell.core.model import Account
from batchbell.storage import accounts, enrolling
from batchbell.storage.paging import Page
from batchbell.web import account_shapes, describing, shapes
from batchbell.web.bodies import read_json
from batchbell.web.calling import Call, Caller, answer, page_answer
from batchbell.web.contract import answers, takes
from batchbell.web.enrolling import AccountForm, api_key_of, check_sealed, probe
from batchbell.web.parameters import strict_router

router = strict_router("access")

Force = Annotated[
    bool, Query(description="Also where batches are open, which then are watched no more.")
]


@router.post(
    "/v1/accounts",
    summary="Add an account, watched from now on",
    openapi_extra=takes(account_shapes.AccountRequest),
    **answers(account_shapes.Account, 409, 413, status=201, says="The account."),
)
async def add_account(call: Caller, request: Request) -> Response:
    context = call.context
    wanted = AccountForm(context, call.project_id).add(await read_json(request))
    check_sealed(context.store)
    added = await context.store.write(
        enrolling.add, call.project_id, **wanted, mint=context.mint, now=context.clock()
    )
    call.surface.directory.forget()
    return answer(await _shown(call, added), 201)


@router.get(
    "/v1/accounts",
    summary="List accounts, the default first, then the oldest",
    **answers(shapes.Page[account_shapes.Account]),
)
async def list_accounts(call: Caller) -> Response:
    found = await call.context.store.read(accounts.list_accounts, call.project_id)
    data = [await _shown(call, one) for one in found]
    return page_answer(Page(data, has_more=False), data, [one.id for one in data])


@router.get(
    "/v1/accounts/{account_id}",
    summary="One account, by id or name",
    **answers(account_shapes.Account, 404),
)
async def get_account(call: Caller, account_id: str) -> Response:
    return answer(await _shown(call, await _find(call, account_id)))


@router.post(
    "/v1/accounts/{account_id}",
    summary="Change an account's address, API key or state",
    openapi_extra=takes(account_shapes.AccountChanges),
    **answers(account_shapes.Account, 404, 409, 413),
)
async def change_account(call: Caller, account_id: str, request: Request) -> Response:
    context = call.context
    changes = AccountForm(context, call.project_id).changes(await read_json(request))
    if "credentials" in changes:
        check_sealed(context.store)
    return await _change(call, account_id, **changes)


@router.delete(
    "/v1/accounts/{account_id}",
    summary="Remove an account, and forget its API key",
    **answers(account_shapes.AccountDeleted, 404, 409),
)
async def remove_account(call: Caller, account_id: str, force: Force = False) -> Response:
    context, found = call.context, await _find(call, account_id)
    still_open = await context.store.write(
        enrolling.remove, call.project_id, found.id, force=force, now=context.clock()
    )
    call.surface.directory.forget()
    return answer(account_shapes.AccountDeleted(id=found.id, open_batches=still_open))


@router.post(
    "/v1/accounts/{account_id}/pause",
    summary="Sweep an account no more until it is resumed",
    **answers(account_shapes.Account, 404),
)
async def pause_account(call: Caller, account_id: str) -> Response:
    return await _change(call, account_id, paused=True)


@router.post(
    "/v1/accounts/{account_id}/resume",
    summary="Sweep an account again, at once",
    **answers(account_shapes.Account, 404),
)
async def resume_account(call: Caller, account_id: str) -> Response:
    return await _change(call, account_id, paused=False)


@router.post(
    "/v1/accounts/{account_id}/test",
    summary="List an account's batches at its provider once, and say what came of it",
    **answers(account_shapes.AccountTest, 400, 404, says="What came of it."),
)
async def test_account(call: Caller, account_id: str) -> Response:
    found = await _find(call, account_id)
    return answer(await probe(call.context, found, await api_key_of(call.context, found)))


async def _find(call: Call, word: str) -> Account:
    return await call.context.store.read(enrolling.find, call.project_id, word)


async def _change(call: Call, word: str, **changes: str | bool | None) -> Response:
    context = call.context
    changed = await context.store.write(
        enrolling.change,
        call.project_id,
        word,
        **changes,  # type: ignore[arg-type]
        now=context.clock(),
    )
    return answer(await _shown(call, changed))


async def _shown(call: Call, account: Account) -> account_shapes.Account:
    kept = await call.context.store.read(enrolling.credentials_of, account.id)
    return describing.account(account, kept, now=call.context.clock())
