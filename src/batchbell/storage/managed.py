"""Endpoints as their owners have them: made, listed, changed, their secrets rotated, deleted.

Whoever makes an endpoint hears of every batch of the project that passes its filters. The
endpoints of watched URLs are listed here too, but only those who watch make and change them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select, update

from batchbell.core.address import is_another
from batchbell.core.endpoint import SECRETS_MAX
from batchbell.core.errors import InvalidRequest, NotFound
from batchbell.core.model import Endpoint, EndpointState, EventType, Mint
from batchbell.core.travelling import ResultsMode
from batchbell.storage.audience import MANAGED
from batchbell.storage.endpoints import (
    FRESH,
    JOINED,
    Secret,
    enable,
    own_headers,
    to_endpoint,
    valid_secrets,
)
from batchbell.storage.outages import forget_deleted
from batchbell.storage.paging import Page, page_of
from batchbell.storage.schema import endpoints, projects

DELETED = "deleted"
ENDPOINTS_MAX = 1000
"""Of one project, those of watched URLs not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What its owner wants of an endpoint. None is the default."""

    url: str
    name: str
    event_types: tuple[EventType, ...]
    description: str | None = None
    accounts: tuple[str, ...] | None = None
    """Names of accounts whose batches it hears of."""
    metadata: Mapping[str, str] | None = None
    """Pairs that a batch must have among its own."""
    headers: Mapping[str, str] | None = None
    timeout_seconds: float | None = None
    schedule: tuple[float, ...] | None = None
    """Seconds to wait before each retry."""
    rate_limit: float | None = None
    """Calls a second at most."""
    ordered: bool = False
    """Whether what it hears comes one by one, in the order of events."""
    results: ResultsMode = ResultsMode.LINK


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """An endpoint with all that is known of it."""

    endpoint: Endpoint
    wishes: Wishes
    managed: bool
    state_since: float
    created_at: float
    updated_at: float

    @property
    def id(self) -> str:
        return self.endpoint.id


def create(
    connection: Connection,
    project_id: str,
    wishes: Wishes,
    *,
    secret: str,
    mint: Mint,
    now: float,
) -> Known:
    """Make an endpoint that hears of all its project from now on, signed with `secret`.

    Raises InvalidRequest where the project has as many as it may have.
    """
    _check_number(connection, project_id)
    id = mint("whe")
    row = {
        "id": id,
        "project_id": project_id,
        "managed": True,
        "state": EndpointState.ACTIVE,
        "state_since": now,
        "failures": 0,
        "secrets": _kept([Secret(secret, None)]),
        "created_at": now,
        **_columns(wishes, now),
    }
    connection.execute(insert(endpoints).values(row))
    return get(connection, project_id, id, now=now)


def _check_number(connection: Connection, project_id: str) -> None:
    """Every event is offered to each of them. The lock has others count after this one is made."""
    project = select(projects.c.id).where(projects.c.id == project_id)
    connection.execute(project.with_for_update(key_share=True))
    own = select(func.count()).where(endpoints.c.project_id == project_id, MANAGED)
    if connection.execute(own).scalar_one() >= ENDPOINTS_MAX:
        raise InvalidRequest(
            f"The project has {ENDPOINTS_MAX:,} endpoints, and may not have more: delete those"
            " that nobody needs, or have watches call a `url`.",
            code="too_many_endpoints",
        )


def get(connection: Connection, project_id: str, endpoint_id: str, *, now: float) -> Known:
    """One endpoint of the project, implied or not. Raises NotFound, also once it is deleted."""
    return _known(_row(connection, _one(project_id, endpoint_id), endpoint_id), now)


def list_endpoints(
    connection: Connection,
    project_id: str,
    *,
    limit: int,
    now: float,
    after: str | None = None,
    implied: bool = False,
) -> Page[Known]:
    """The project's endpoints, newest first; those of watched URLs only if `implied`."""
    query = JOINED.where(endpoints.c.project_id == project_id, endpoints.c.deleted_at.is_(None))
    if not implied:
        query = query.where(endpoints.c.managed)
    if after is not None:
        query = query.where(endpoints.c.id < get(connection, project_id, after, now=now).id)
    rows = connection.execute(query.order_by(endpoints.c.id.desc()).limit(limit + 1))
    return page_of([_known(row, now) for row in rows], limit)


def change(
    connection: Connection,
    project_id: str,
    endpoint_id: str,
    changes: Mapping[str, Any],
    *,
    now: float,
) -> Known:
    """Change some of the Wishes. Another URL begins anew: what the old one did counts no more.

    Raises NotFound, and InvalidRequest for the endpoint of a watched URL, and for another URL
    without the headers that it has: they may hold credentials, and never go there by themselves.
    """
    row = _own(connection, project_id, endpoint_id)
    before = _wishes(row)
    after = replace(before, **changes)
    if after == before:
        return _known(row, now)
    if before.headers and "headers" not in changes and is_another(before.url, after.url):
        raise InvalidRequest(
            "The endpoint's own headers are not sent to another URL unless they are given again:"
            " send headers together with url, or headers: null to have none.",
            param="headers",
            code="credentials_required",
        )
    values = _columns(after, now)
    if after.url != before.url:
        values |= {**FRESH, "state_since": now}
    _write(connection, endpoint_id, values)
    return get(connection, project_id, endpoint_id, now=now)


def rotate(
    connection: Connection,
    project_id: str,
    endpoint_id: str,
    *,
    secret: str,
    grace_seconds: float,
    now: float,
) -> Known:
    """Sign with this secret from now on, and with those before it for `grace_seconds` more.

    Without grace no older one signs again. Raises NotFound, and InvalidRequest for the endpoint
    of a watched URL, and where too many would sign at once.
    """
    row = _own(connection, project_id, endpoint_id)
    older: list[Secret] = []
    if grace_seconds > 0:
        until = now + grace_seconds
        older = [
            Secret(one.secret, until if one.until is None else min(one.until, until))
            for one in valid_secrets(row.secrets, now=now)
            if one.secret != secret
        ]
    if len(older) >= SECRETS_MAX:
        raise InvalidRequest(
            f"{SECRETS_MAX} secrets sign already: wait until one has run out, or keep none of"
            " the old ones.",
            param="keep_old_secret_active_seconds",
        )
    kept = _kept([Secret(secret, None), *older])
    _write(connection, endpoint_id, {"secrets": kept, "updated_at": now})
    return get(connection, project_id, endpoint_id, now=now)


def enable_again(connection: Connection, project_id: str, endpoint_id: str, *, now: float) -> Known:
    """Let a disabled endpoint be called again. What was held stays held. Raises NotFound."""
    get(connection, project_id, endpoint_id, now=now)
    enable(connection, endpoint_id, now=now)
    return get(connection, project_id, endpoint_id, now=now)


def remove(connection: Connection, project_id: str, endpoint_id: str, *, now: float) -> None:
    """Delete an endpoint, the watches that name it, and what it was still to be told.

    It is not there from this moment on; what hangs on it is deleted in bounded steps, of which the
    janitor does the rest. What was delivered stays in the log. Raises NotFound.
    """
    _row(connection, _one(project_id, endpoint_id).with_for_update(of=endpoints), endpoint_id)
    # Disabled too, so that what is recorded for it at this moment is never sent.
    gone = {"state": EndpointState.DISABLED, "reason": DELETED, "deleted_at": now}
    _write(connection, endpoint_id, {**FRESH, **gone, "state_since": now})
    forget_deleted(connection, [endpoint_id], now=now)


def _one(project_id: str, endpoint_id: str) -> Select[Any]:
    return JOINED.where(
        endpoints.c.project_id == project_id,
        endpoints.c.id == endpoint_id,
        endpoints.c.deleted_at.is_(None),
    )


def _row(connection: Connection, query: Select[Any], endpoint_id: str) -> Row[Any]:
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound("endpoint", endpoint_id)
    return row


def _own(connection: Connection, project_id: str, endpoint_id: str) -> Row[Any]:
    """One that was made by its owner, locked until the transaction ends."""
    query = _one(project_id, endpoint_id).with_for_update(of=endpoints)
    row = _row(connection, query, endpoint_id)
    if not row.managed:
        raise InvalidRequest(
            "This is the endpoint of a URL that is watched: it has nothing to change, and signs"
            " with the project's secret. Make an endpoint of your own for that URL instead.",
        )
    return row


def _write(connection: Connection, endpoint_id: str, values: Mapping[str, Any]) -> None:
    connection.execute(update(endpoints).where(endpoints.c.id == endpoint_id).values(values))


JSON_COLUMNS = ("event_types", "accounts", "metadata", "headers", "schedule")


def _columns(wishes: Wishes, now: float) -> dict[str, Any]:
    row = asdict(wishes)
    for name in JSON_COLUMNS:
        if row[name] is not None:
            row[name] = json.dumps(row[name])
    return {**row, "updated_at": now}


def _kept(secrets: Sequence[Secret]) -> str:
    return json.dumps([asdict(one) for one in secrets])


def _known(row: Row[Any], now: float) -> Known:
    return Known(
        endpoint=to_endpoint(row, now=now),
        wishes=_wishes(row),
        managed=row.managed,
        state_since=row.created_at if row.state_since is None else row.state_since,
        created_at=row.created_at,
        updated_at=row.created_at if row.updated_at is None else row.updated_at,
    )


def _wishes(row: Row[Any]) -> Wishes:
    """Of one whose URL is watched: it has no name but its URL, and hears what watches want."""
    return Wishes(
        url=row.url,
        name=row.name or row.url,
        event_types=tuple(EventType(word) for word in _read(row.event_types) or ()),
        description=row.description,
        accounts=_tuple(row.accounts),
        metadata=_read(row.metadata),
        headers=own_headers(row),
        timeout_seconds=row.timeout_seconds,
        schedule=_tuple(row.schedule),
        rate_limit=row.rate_limit,
        ordered=row.ordered,
        results=ResultsMode(row.results or ResultsMode.LINK),
    )


def _read(kept: str | None) -> Any:
    return None if kept is None else json.loads(kept)


def _tuple(kept: str | None) -> tuple[Any, ...] | None:
    return None if kept is None else tuple(json.loads(kept))
