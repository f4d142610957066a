"""Accounts: how their sweeps fare, and adding, pausing, testing and removing them."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from batchbell.api.accounts import AccountTest
from batchbell.core.errors import InvalidRequest
from batchbell.providers.profiles import PROFILES
from batchbell.storage import accounts
from batchbell.web import accounts as api
from batchbell.web.dashboard.page import Form, Posted, Visit, Visitor, done, page_router, show

router = page_router()

PAGE = "/dashboard/accounts"


@router.get("/accounts")
async def list_page(visitor: Visit) -> Response:
    return await _show(visitor)


async def _show(visitor: Visitor, test: AccountTest | None = None) -> Response:
    found = await visitor.call.context.store.read(accounts.list_accounts, visitor.project.id)
    return show(
        visitor,
        "accounts.html",
        section="accounts",
        title="Accounts",
        rows=[await api.shown(visitor.call, one) for one in found],
        providers=sorted(PROFILES),
        test=test,
        tested=[one.name for one in found if test and one.id == test.account_id],
    )


@router.post("/accounts")
async def act(visitor: Visit, form: Posted) -> Response:
    call = visitor.call
    match form.need("action"):
        case "add":
            added = await api.add(call, _body(form))
            return done(PAGE, f"Account {added.name} is watched from now on.")
        case "test":
            return await _show(visitor, await api.test(call, form.need("account")))
        case "replace":
            await api.update(call, form.need("account"), {"api_key": form.need("api_key")})
            return done(PAGE, "It is swept with the new API key from now on.")
        case "pause":
            await api.change(call, form.need("account"), paused=True)
            return done(PAGE, "It is swept no more until it is resumed.")
        case "resume":
            await api.change(call, form.need("account"), paused=False)
            return done(PAGE, "It is swept again, at once.")
        case "remove":
            await api.remove(call, form.need("account"), force="force" in form)
            return done(PAGE, "The account is removed, and its API key forgotten.")
        case _:
            raise InvalidRequest("There is no such action.", param="action")


def _body(form: Form) -> dict[str, Any]:
    names = ("name", "provider", "base_url", "api_key")
    body: dict[str, Any] = {name: form[name] for name in names if name in form}
    return body | {"discover": "discover" in form}
