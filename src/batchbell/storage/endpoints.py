"""Endpoints: webhook destinations. A URL that is watched is an endpoint of its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, select, update

from batchbell.core.model import Endpoint, EndpointState, Mint
from batchbell.storage.bulk import among, insert_missing, update_all
from batchbell.storage.schema import endpoints, projects


def ensure_endpoints(
    connection: Connection, project_id: str, urls: Sequence[str], *, mint: Mint, now: float
) -> dict[str, str]:
    """The endpoint id of each URL, made where it is missing.

    Naming a URL anew asks for calls to it: an endpoint that was disabled is active again.
    """
    ordered = sorted(set(urls))
    known = select(endpoints.c.url, endpoints.c.id, endpoints.c.state).where(
        endpoints.c.project_id == project_id, among(connection, endpoints.c.url, ordered)
    )
    found = {row.url: row for row in connection.execute(known)}
    if missing := [url for url in ordered if url not in found]:
        rows = [_new_row(project_id, url, mint=mint, now=now) for url in missing]
        insert_missing(connection, endpoints, rows)
        found = {row.url: row for row in connection.execute(known)}
    _enable(connection, [row.id for row in found.values() if row.state == EndpointState.DISABLED])
    return {url: row.id for url, row in found.items()}


def _new_row(project_id: str, url: str, *, mint: Mint, now: float) -> dict[str, Any]:
    return {
        "id": mint("whe"),
        "project_id": project_id,
        "url": url,
        "state": EndpointState.ACTIVE,
        "failures": 0,
        "created_at": now,
    }


def _enable(connection: Connection, ids: Sequence[str]) -> None:
    if ids:
        fresh = {"state": EndpointState.ACTIVE, "reason": None, "failures": 0}
        connection.execute(
            update(endpoints)
            .where(among(connection, endpoints.c.id, ids))
            .values(failing_since=None, paused_until=None, **fresh)
        )


def enable(connection: Connection, endpoint_id: str) -> None:
    """Let a disabled endpoint be called again."""
    state = select(endpoints.c.state).where(endpoints.c.id == endpoint_id)
    if connection.execute(state).scalar_one_or_none() == EndpointState.DISABLED:
        _enable(connection, [endpoint_id])


def endpoints_by_id(connection: Connection, ids: Collection[str]) -> dict[str, Endpoint]:
    """These endpoints, with what to sign with."""
    query = _joined().where(among(connection, endpoints.c.id, ids))
    return {row.id: _endpoint(row) for row in connection.execute(query)}


def failing_among(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Those of these endpoints that have failed since their last success."""
    query = select(endpoints.c.id).where(
        among(connection, endpoints.c.id, ids), endpoints.c.failures > 0
    )
    return set(connection.execute(query).scalars())


def locked(connection: Connection, ids: Sequence[str]) -> dict[str, Endpoint]:
    """The same, kept from being changed by others until the transaction ends."""
    query = _joined().where(among(connection, endpoints.c.id, ids)).order_by(endpoints.c.id)
    rows = connection.execute(query.with_for_update(of=endpoints))
    return {row.id: _endpoint(row) for row in rows}


def save_health(connection: Connection, changed: Sequence[Endpoint]) -> None:
    """Write how these endpoints are doing."""
    names = ("id", "state", "reason", "failures", "failing_since", "paused_until")
    rows = [{name: getattr(endpoint, name) for name in names} for endpoint in changed]
    update_all(connection, endpoints, "id", rows)


def _joined() -> Select[Any]:
    return select(endpoints, projects.c.webhook_secret).join(
        projects, projects.c.id == endpoints.c.project_id
    )


def _endpoint(row: Row[Any]) -> Endpoint:
    return Endpoint(
        id=row.id,
        project_id=row.project_id,
        url=row.url,
        secrets=(row.webhook_secret,),
        state=EndpointState(row.state),
        reason=row.reason,
        failures=row.failures,
        failing_since=row.failing_since,
        paused_until=row.paused_until,
    )
