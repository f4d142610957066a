"""API keys of the project: made, shown once, and revoked."""

from __future__ import annotations

from starlette.responses import Response

from batchbell.core.errors import InvalidRequest
from batchbell.storage import keys
from batchbell.web import keys as api
from batchbell.web.dashboard.page import (
    Posted,
    Visit,
    Visitor,
    begin_session,
    done,
    keep_session,
    page_router,
    show,
)

router = page_router()

PAGE = "/dashboard/keys"


@router.get("/keys")
async def list_page(visitor: Visit) -> Response:
    return await _show(visitor)


async def _show(visitor: Visitor, made: str | None = None) -> Response:
    return show(
        visitor,
        "keys.html",
        section="keys",
        title="API keys",
        rows=await visitor.call.context.store.read(keys.list_keys, visitor.project.id),
        made=made,
    )


async def _create(visitor: Visitor, name: str) -> Response:
    """Make a key and show it. Whoever makes the first one is signed in with it.

    Else they would be asked for it before they have read it: local mode has ended.
    """
    made, key = await api.create(visitor.call, visitor.project.id, name)
    if visitor.key is not None:
        return await _show(visitor, key)
    text, secret = await begin_session(visitor.call.surface, made)
    response = await _show(visitor.signed_in(made, text, secret=secret), key)
    keep_session(visitor.request, response, text)
    return response


@router.post("/keys")
async def act(visitor: Visit, form: Posted) -> Response:
    match form.need("action"):
        case "create":
            return await _create(visitor, form.need("name"))
        case "revoke":
            await api.revoke(visitor.call, visitor.project.id, form.need("key_id"))
            return done(PAGE, "The key is revoked.")
        case _:
            raise InvalidRequest("There is no such action.", param="action")
