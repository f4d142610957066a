"""The server itself: its workers, its database, what its checks find, and what is set."""

from __future__ import annotations

import os
import platform
import sqlite3

from starlette.responses import Response

from batchbell import checks
from batchbell.checks import Finding, failed
from batchbell.core.errors import InvalidRequest, StoreError
from batchbell.settings import describe
from batchbell.storage import accounts, opening
from batchbell.web import accounts as api
from batchbell.web.dashboard.page import OperatorVisit, Posted, Visitor, page_router, show

router = page_router()

WORST_FIRST = ("failed", "note", "ok")
LOOK_INTO_LOG = "Look into the log of this process."
LOOK_AT_WORKERS = "Look into the log of each process; start a worker where none runs."


@router.get("/system")
async def system_page(visitor: OperatorVisit) -> Response:
    return await _show(visitor, None)


@router.post("/system")
async def act(visitor: OperatorVisit, form: Posted) -> Response:
    """Ask the providers, which a page that somebody only looks at does not do."""
    if form.need("action") != "check":
        raise InvalidRequest("There is no such action.", param="action")
    context = visitor.call.context
    known = await context.store.read(accounts.list_accounts)
    found = await checks.of_providers(
        context.declared,
        context.settings,
        has_others=any(not one.from_environment for one in known),
        clock=context.clock,
    )
    return await _show(visitor, found)


async def _show(visitor: Visitor, of_providers: list[Finding] | None) -> Response:
    context = visitor.call.context
    store = context.store
    try:
        size: int | None = await store.read(opening.size)
    except StoreError:
        size = None  # its user may not ask
    findings = await _findings(visitor)
    return show(
        visitor,
        "system.html",
        section="system",
        title="System",
        of_providers=of_providers,
        findings=sorted(findings, key=lambda one: WORST_FIRST.index(one.state)),
        wrong=sum(one.state == "failed" for one in findings),
        workers=context.workers_alive(),
        python=platform.python_version(),
        database=f"SQLite {sqlite3.sqlite_version}" if context.settings.is_sqlite else "PostgreSQL",
        size=size,
        revision=await store.read(opening.current),
        head=opening.head(),
        is_full=store.is_full,
        local=visitor.key is None,
        streams=(visitor.call.surface.streams.number, visitor.call.surface.screens.number),
    )


async def _findings(visitor: Visitor) -> list[Finding]:
    """What `doctor` says, but for whether the server answers and what its providers say."""
    context = visitor.call.context
    settings = context.settings
    ready = await visitor.call.surface.condition.readiness()
    file = checks.database_file(settings)
    stored = await checks.of_store(context.store, settings, now=visitor.now)
    return [
        *(failed("server", reason, LOOK_INTO_LOG) for reason in ready.reasons),
        *checks.of_work(ready.warnings, stored, LOOK_AT_WORKERS),
        *(checks.of_file(file) if file is not None else ()),
        *stored,
        *await _of_accounts(visitor),
        *checks.of_environment(settings, os.environ),
        checks.of_receivers(settings, local=visitor.key is None),
    ]


async def _of_accounts(visitor: Visitor) -> list[Finding]:
    """Those of all projects."""
    context = visitor.call.context
    found: list[Finding] = []
    for one in await context.store.read(accounts.list_accounts):
        shown = await api.shown(visitor.call, one)
        undeclared = one.from_environment and context.declared.of(one) is None
        found += checks.of_shown(one.label, shown, undeclared=undeclared)
    return found


@router.get("/settings")
async def settings_page(visitor: OperatorVisit) -> Response:
    return show(
        visitor,
        "settings.html",
        section="settings",
        title="Settings",
        rows=describe(visitor.call.context.settings),
    )
