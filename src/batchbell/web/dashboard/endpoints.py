"""Endpoints: how they do, their secrets, a test, a pause, and what they missed."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from batchbell.core.errors import InvalidRequest
from batchbell.core.model import DEFAULT_EVENTS, DeliveryState, EventType
from batchbell.core.replay import ReplayFilter, ReplayStatus
from batchbell.storage import endpoints, health, replays
from batchbell.storage.endpoints import Known
from batchbell.web import endpoints as api
from batchbell.web.dashboard import overview
from batchbell.web.dashboard.filters import older, word_of
from batchbell.web.dashboard.formats import path
from batchbell.web.dashboard.page import Form, Posted, Visit, Visitor, done, page_router, show

router = page_router()

PAGE = 50


def url_of(endpoint_id: str) -> str:
    """The page of an endpoint."""
    return f"/dashboard/endpoints/{path(endpoint_id)}"


@router.get("/endpoints")
async def list_page(visitor: Visit, implied: str = "", after: str | None = None) -> Response:
    page = await visitor.call.page(
        endpoints.list_endpoints,
        limit=PAGE,
        after=after or None,
        implied=bool(implied),
        now=visitor.now,
    )
    return show(
        visitor,
        "endpoints.html",
        section="endpoints",
        title="Endpoints",
        rows=page.items,
        implied=bool(implied),
        types=[one for one in EventType if one is not EventType.PING],
        defaults=DEFAULT_EVENTS,
        older=older(page, {"implied": implied}),
        is_first=after is None,
    )


@router.post("/endpoints")
async def create(visitor: Visit, form: Posted) -> Response:
    types = [one for one in EventType if f"type:{one}" in form]
    body: dict[str, Any] = {"name": form.get("name", ""), "url": form.get("url", "")}
    if types:
        body["event_types"] = types
    made, secret = await api.create(visitor.call, body)
    return await _show(visitor, made, secret=secret)


@router.get("/endpoints/{endpoint_id}")
async def endpoint_page(visitor: Visit, endpoint_id: str) -> Response:
    return await _show(visitor, await api.get(visitor.call, endpoint_id))


async def _show(visitor: Visitor, found: Known, **more: Any) -> Response:
    store = visitor.call.context.store
    counts = await store.read(health.count_waiting, found.id)
    return show(
        visitor,
        "endpoint.html",
        section="endpoints",
        title=found.fields.name,
        one=found,
        answer=api.shown(found, counts=counts),
        page=url_of(found.id),
        chart=await overview.of_endpoint(visitor, found.id),
        waiting=counts[DeliveryState.PENDING],
        held=counts[DeliveryState.HELD],
        types=[one for one in EventType if one is not EventType.PING],
        statuses=list(ReplayStatus),
        **{"secret": None, "test": None, "counted": None, "status": "", **more},
    )


@router.post("/endpoints/{endpoint_id}")
async def act(visitor: Visit, form: Posted, endpoint_id: str) -> Response:
    call, now = visitor.call, visitor.now
    store = call.context.store
    match form.need("action"):
        case "test":
            type_ = word_of(EventType, form.get("type", "")) or EventType.COMPLETED
            sent = await api.test(call, endpoint_id, type_)
            return await _show(visitor, await api.get(call, endpoint_id), test=sent)
        case "rotate":
            keep = {"keep_old_secret_active_for_24_hours": "keep" in form}
            changed, secret = await api.rotate(call, endpoint_id, keep)
            return await _show(visitor, changed, secret=secret)
        case "disable":
            await store.write(health.disable, visitor.project.id, endpoint_id, now=now)
            return done(url_of(endpoint_id), "It is called no more; what waits for it is held.")
        case "enable":
            await store.write(endpoints.enable_again, visitor.project.id, endpoint_id, now=now)
            return done(url_of(endpoint_id), "It is called again. What was held stays held.")
        case "delete":
            await store.write(endpoints.remove, visitor.project.id, endpoint_id, now=now)
            return done("/dashboard/endpoints", "The endpoint is deleted.")
        case "count" | "replay":
            return await _replay(visitor, form, endpoint_id)
        case _:
            raise InvalidRequest("There is no such action.", param="action")


async def _replay(visitor: Visitor, form: Form, endpoint_id: str) -> Response:
    """Count what it missed first; on a second word send it."""
    call, enable = visitor.call, "enable" in form
    status = word_of(ReplayStatus, form.get("status", "")) or ReplayStatus.FAILED
    wanted = ReplayFilter(status=status, endpoint_id=endpoint_id)
    counted = await call.context.store.read(
        replays.count, visitor.project.id, wanted, enable=enable, now=visitor.now
    )
    if form["action"] == "count":
        found = await api.get(call, endpoint_id)
        return await _show(visitor, found, counted=counted, status=status, enables=enable)
    made = await call.context.store.write(
        replays.create,
        visitor.project.id,
        wanted,
        counted,
        enable=enable,
        mint=call.context.mint,
        now=visitor.now,
    )
    return done(f"/dashboard/replays/{path(made.id)}", f"{made.total:,} deliveries are sent again.")
