"""Endpoints: how they do, their secrets, a test, a pause, and what they missed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from starlette.responses import Response

from batchbell.core.errors import InvalidRequest
from batchbell.core.model import DEFAULT_EVENTS, DeliveryState, EventType
from batchbell.core.replay import ReplayFilter, ReplayStatus
from batchbell.storage import endpoints, health, replays
from batchbell.storage.endpoints import Known
from batchbell.web import endpoints as api
from batchbell.web.dashboard import overview
from batchbell.web.dashboard.formats import path
from batchbell.web.dashboard.lists import PAGE, Asked, show_list, word_of
from batchbell.web.dashboard.page import Form, Posted, Visit, Visitor, done, page_router, show
from batchbell.web.dashboard.replays import TAKES, begin

router = page_router()

CALLED_AGAIN = {
    "enable": "It is called again. What was held stays held.",
    "probe": "The delivery that has waited longest is sent now.",
}
REAL_EVENTS = tuple(one for one in EventType if one is not EventType.PING)


def url_of(endpoint_id: str) -> str:
    """The page of an endpoint."""
    return f"/dashboard/endpoints/{path(endpoint_id)}"


class Which(Asked):
    """Which endpoints a list holds."""

    implied: str = ""
    """Those of watched URLs, too."""


@router.get("/endpoints")
async def list_page(visitor: Visit, asked: Annotated[Which, Query()]) -> Response:
    page = await visitor.call.page(
        endpoints.list_endpoints,
        limit=PAGE,
        after=asked.after or None,
        implied=bool(asked.implied),
        now=visitor.now,
    )
    return show_list(visitor, "endpoints", page, asked, types=REAL_EVENTS, defaults=DEFAULT_EVENTS)


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
        url=url_of(found.id),
        chart=await overview.of_endpoint(visitor, found.id),
        waiting=counts[DeliveryState.PENDING],
        held=counts[DeliveryState.HELD],
        types=REAL_EVENTS,
        statuses=TAKES,
        **{"secret": None, "test": None, "counted": None, "status": "", **more},
    )


@router.post("/endpoints/{endpoint_id}")
async def act(visitor: Visit, form: Posted, endpoint_id: str) -> Response:
    call, now = visitor.call, visitor.now
    store = call.context.store
    match form.need("action"):
        case "test":
            type_ = word_of(EventType, form.get("type", ""), "type") or EventType.COMPLETED
            sent = await api.test(call, endpoint_id, type_)
            return await _show(visitor, await api.get(call, endpoint_id), test=sent)
        case "rotate":
            keep = {"keep_old_secret_active_for_24_hours": "keep" in form}
            changed, secret = await api.rotate(call, endpoint_id, keep)
            return await _show(visitor, changed, secret=secret)
        case "disable":
            await store.write(health.disable, visitor.project.id, endpoint_id, now=now)
            return done(url_of(endpoint_id), "It is called no more; what waits for it is held.")
        case "enable" | "probe" as action:
            await store.write(endpoints.enable_again, visitor.project.id, endpoint_id, now=now)
            return done(url_of(endpoint_id), CALLED_AGAIN[action])
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
    status = word_of(ReplayStatus, form.get("status", ""), "status") or ReplayStatus.FAILED
    wanted = ReplayFilter(status=status, endpoint_id=endpoint_id)
    counted = await call.context.store.read(
        replays.count, visitor.project.id, wanted, enable=enable, now=visitor.now
    )
    if form["action"] == "count":
        found = await api.get(call, endpoint_id)
        return await _show(visitor, found, counted=counted, status=status, enables=enable)
    return await begin(visitor, wanted, counted, enable=enable)
