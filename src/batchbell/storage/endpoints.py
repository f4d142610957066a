"""Endpoints: webhook destinations. A URL that is watched is an endpoint of its own."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, not_, select, update

from batchbell.core.errors import InvalidRequest
from batchbell.core.model import Endpoint, EndpointState, Mint
from batchbell.storage.bulk import among, insert_missing, update_all
from batchbell.storage.schema import endpoints, projects
from batchbell.storage.sealing import Damaged, salvaged

JOINED = select(
    *(salvaged(column) for column in (*endpoints.c, projects.c.webhook_secret))
).join_from(endpoints, projects, projects.c.id == endpoints.c.project_id)
"""Endpoints with the secret of their project."""
IMPLIED = and_(not_(endpoints.c.managed), endpoints.c.deleted_at.is_(None))
"""A URL that is watched: there is one for each."""

NO_OUTAGE: Mapping[str, Any] = {"opened_at": None, "probe_at": None, "warnings": 0}

FRESH: Mapping[str, Any] = {
    "state": EndpointState.ACTIVE,
    "reason": None,
    "failures": 0,
    "failing_since": None,
    "paused_until": None,
    **NO_OUTAGE,
}
"""What is known of how an endpoint does before anything was sent."""


def ensure_endpoints(
    connection: Connection, project_id: str, urls: Sequence[str], *, mint: Mint, now: float
) -> dict[str, str]:
    """The endpoint id of each URL, made where it is missing.

    Naming a URL anew asks for calls to it: an endpoint that was disabled is active again.
    """
    ordered = sorted(set(urls))
    known = select(endpoints.c.url, endpoints.c.id, endpoints.c.state).where(
        endpoints.c.project_id == project_id,
        IMPLIED,
        among(connection, endpoints.c.url, ordered),
    )
    found = {row.url: row for row in connection.execute(known)}
    if missing := [url for url in ordered if url not in found]:
        rows = [_new_row(project_id, url, mint=mint, now=now) for url in missing]
        insert_missing(connection, endpoints, rows)
        found = {row.url: row for row in connection.execute(known)}
    disabled = [row.id for row in found.values() if row.state == EndpointState.DISABLED]
    _enable(connection, disabled, now=now)
    return {url: row.id for url, row in found.items()}


def named_urls(connection: Connection, project_id: str, ids: Collection[str]) -> dict[str, str]:
    """The URLs of these endpoints. Raises InvalidRequest for what the project has not."""
    if not ids:
        return {}
    query = select(endpoints.c.id, endpoints.c.url).where(
        endpoints.c.project_id == project_id,
        endpoints.c.deleted_at.is_(None),
        among(connection, endpoints.c.id, sorted(ids)),
    )
    # Read with a lock, so that a watch of it is not written after its watches were deleted.
    found = {row.id: row.url for row in connection.execute(query.with_for_update(read=True))}
    if unknown := sorted(set(ids) - set(found)):
        raise InvalidRequest(
            f"No endpoint found with id {unknown[0]!r}.", param="endpoint_id", code="not_found"
        )
    return found


def _new_row(project_id: str, url: str, *, mint: Mint, now: float) -> dict[str, Any]:
    return {
        "id": mint("whe"),
        "project_id": project_id,
        "url": url,
        "state": EndpointState.ACTIVE,
        "failures": 0,
        "managed": False,
        "created_at": now,
    }


def _enable(connection: Connection, ids: Sequence[str], *, now: float) -> None:
    if ids:
        connection.execute(
            update(endpoints)
            .where(among(connection, endpoints.c.id, ids))
            .values(**FRESH, state_since=now)
        )


def enable(connection: Connection, endpoint_id: str, *, now: float) -> None:
    """Let a disabled endpoint be called again, unless it was deleted.

    One behind an open breaker is probed at once, and soon again.
    """
    state = select(endpoints.c.state).where(
        endpoints.c.id == endpoint_id, endpoints.c.deleted_at.is_(None)
    )
    if connection.execute(state).scalar_one_or_none() == EndpointState.DISABLED:
        _enable(connection, [endpoint_id], now=now)
    waits = (endpoints.c.id == endpoint_id, endpoints.c.opened_at.isnot(None))
    connection.execute(update(endpoints).where(*waits).values(opened_at=now, probe_at=now))


def endpoints_by_id(
    connection: Connection, ids: Collection[str], *, now: float
) -> dict[str, Endpoint]:
    """These endpoints, with the secrets that sign at this moment."""
    query = JOINED.where(among(connection, endpoints.c.id, ids))
    return {row.id: to_endpoint(row, now=now) for row in connection.execute(query)}


def failing_among(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Those of these endpoints that have failed since their last success."""
    query = select(endpoints.c.id).where(
        among(connection, endpoints.c.id, ids), endpoints.c.failures > 0
    )
    return set(connection.execute(query).scalars())


def locked(connection: Connection, ids: Sequence[str]) -> dict[str, Endpoint]:
    """The same, kept from being changed by others until the transaction ends.

    Deliveries to them may be made meanwhile: two that tell each other's endpoints wait for none.
    """
    query = JOINED.where(among(connection, endpoints.c.id, ids)).order_by(endpoints.c.id)
    rows = connection.execute(query.with_for_update(of=endpoints, key_share=True))
    return {row.id: to_endpoint(row) for row in rows}


def save_health(connection: Connection, changed: Sequence[Endpoint]) -> None:
    """Write how these endpoints are doing."""
    names = (
        "id",
        "state",
        "state_since",
        "reason",
        "failures",
        "failing_since",
        "paused_until",
        *NO_OUTAGE,
    )
    rows = [{name: getattr(endpoint, name) for name in names} for endpoint in changed]
    update_all(connection, endpoints, "id", rows)


def to_endpoint(row: Row[Any], *, now: float = 0.0) -> Endpoint:
    """From a row of JOINED: without the secrets whose grace is over `now`."""
    return Endpoint(
        id=row.id,
        project_id=row.project_id,
        url=row.url,
        secrets=_secrets(row, now),
        trouble=_trouble(row),
        name=row.name,
        headers=own_headers(row) or {},
        timeout_seconds=row.timeout_seconds,
        schedule=(0.0, *json.loads(row.schedule)) if row.schedule else None,
        rate_limit=row.rate_limit,
        ordered=row.ordered,
        state=EndpointState(row.state),
        state_since=row.state_since,
        reason=row.reason,
        failures=row.failures,
        failing_since=row.failing_since,
        paused_until=row.paused_until,
        opened_at=row.opened_at,
        probe_at=row.probe_at,
        warnings=row.warnings,
    )


def own_headers(row: Row[Any]) -> dict[str, str] | None:
    """What a row of JOINED has of them; None also where they are damaged."""
    if row.headers is None or isinstance(row.headers, Damaged):
        return None
    headers: dict[str, str] = json.loads(row.headers)
    return headers


def _trouble(row: Row[Any]) -> str | None:
    signed_with = row.webhook_secret if row.secrets is None else row.secrets
    damaged = (one for one in (signed_with, row.headers) if isinstance(one, Damaged))
    return next(map(str, damaged), None)


def _secrets(row: Row[Any], now: float) -> tuple[str, ...]:
    if row.secrets is None:
        return () if isinstance(row.webhook_secret, Damaged) else (row.webhook_secret,)
    return tuple(one.secret for one in valid_secrets(row.secrets, now=now))


@dataclass(frozen=True, slots=True)
class Secret:
    """One that signs until a time; None is the current one's."""

    secret: str
    until: float | None


def valid_secrets(kept: str, *, now: float) -> list[Secret]:
    """Those of a `secrets` column that are still in force, the current one first.

    None where they are damaged.
    """
    if isinstance(kept, Damaged):
        return []
    found = [Secret(one["secret"], one["until"]) for one in json.loads(kept)]
    return [one for one in found if one.until is None or one.until > now]
