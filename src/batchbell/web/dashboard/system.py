"""The server itself: its workers, its database, what does not get on, and what is set."""

from __future__ import annotations

import platform
import sqlite3

from starlette.responses import Response

from batchbell.core.errors import StoreError
from batchbell.settings import describe
from batchbell.storage import opening, places
from batchbell.web.dashboard.page import OperatorVisit, page_router, show

router = page_router()


@router.get("/system")
async def system_page(visitor: OperatorVisit) -> Response:
    context = visitor.call.context
    store = context.store
    readiness = await visitor.call.surface.condition.readiness()
    try:
        size: int | None = await store.read(opening.size)
    except StoreError:
        size = None  # its user may not ask
    is_sqlite = context.settings.store_url.startswith("sqlite")
    return show(
        visitor,
        "system.html",
        section="system",
        title="System",
        readiness=readiness,
        workers=context.workers_alive(),
        python=platform.python_version(),
        database=f"SQLite {sqlite3.sqlite_version}" if is_sqlite else "PostgreSQL",
        size=size,
        revision=await store.read(opening.current),
        head=opening.head(),
        seals=store.seals,
        key_source=store.keys.source,
        is_full=store.is_full,
        local=visitor.key is None,
        places=await store.read(places.list_places),
        streams=(visitor.call.surface.streams.number, visitor.call.surface.screens.number),
    )


@router.get("/settings")
async def settings_page(visitor: OperatorVisit) -> Response:
    return show(
        visitor,
        "settings.html",
        section="settings",
        title="Settings",
        rows=describe(visitor.call.context.settings),
    )
