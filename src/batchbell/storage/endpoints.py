"""Endpoints: made, changed, their secrets rotated, deleted. A watched URL is one of its own."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    not_,
    or_,
    select,
    text,
    update,
)

from batchbell.core.address import is_another
from batchbell.core.attachment import ResultsMode
from batchbell.core.endpoint import SECRETS_MAX
from batchbell.core.errors import InvalidRequest, NotFound
from batchbell.core.model import DeliveryState, Endpoint, EndpointState, EventType, Mint
from batchbell.storage.bulk import among, among_listed, in_one_step, insert_missing, listed
from batchbell.storage.engine import dialect_of
from batchbell.storage.leases import claimable
from batchbell.storage.outbox import MANAGED
from batchbell.storage.paging import Page, page_of
from batchbell.storage.schema import deliveries, endpoints, projects, watches
from batchbell.storage.sealing import Damaged, Sealed, salvaged

STEP = 1000
"""Deliveries of one endpoint that one step sets aside or deletes."""

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
    found = _of_urls(connection, project_id, ordered)
    known = {url for url, _, _ in found}
    if missing := [url for url in ordered if url not in known]:
        rows = [_new_row(project_id, url, mint=mint, now=now) for url in missing]
        insert_missing(connection, endpoints, rows)
        found = _of_urls(connection, project_id, ordered)
    disabled = [id for _, id, state in found if state == EndpointState.DISABLED]
    _enable(connection, disabled, now=now)
    return {url: id for url, id, _ in found}


def _of_urls(
    connection: Connection, project_id: str, urls: Sequence[str]
) -> Sequence[tuple[str, str, str]]:
    """URL, id and state of those of the URLs that were ever watched."""
    if dialect_of(connection) == "sqlite":
        found: list[tuple[str, str, str]] = in_one_step(
            connection, OF_URLS_SQLITE, (project_id, listed(connection, urls))
        )
        return found
    named = {"project_id": project_id, "urls": listed(connection, urls)}
    return [(url, id, state) for url, id, state in connection.execute(OF_URLS, named)]


OF_URLS = select(endpoints.c.url, endpoints.c.id, endpoints.c.state).where(
    endpoints.c.project_id == bindparam("project_id"),
    IMPLIED,
    among_listed("postgresql", endpoints.c.url, "urls"),
)
OF_URLS_SQLITE = """
    SELECT json_group_array(json_array(url, id, state)) FROM endpoints
    WHERE project_id = ? AND NOT managed AND deleted_at IS NULL
    AND url IN (SELECT value FROM json_each(?))
"""


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
    if dialect_of(connection) == "sqlite":
        rows = in_one_step(connection, _READ_SQLITE, (json.dumps([*ids]),))
    else:
        rows = [list(row) for row in connection.execute(_READ_POSTGRESQL, {"ids": [*ids]})]
    for row in rows:
        for place, type_ in _SEALED:
            row[place] = type_.process_result_value(row[place], connection.dialect)
    found = {}
    for row in rows:
        own, of_project = (row[place] for place in _KEYS)
        found[row[0]] = _remembered(tuple(row), _secrets(own, of_project, now))
    return found


_USED = (
    *("id", "project_id", "url", "secrets", "name", "headers", "timeout_seconds", "schedule"),
    *("rate_limit", "ordered", "state", "state_since", "reason", "failures", "failing_since"),
    *("paused_until", "opened_at", "probe_at", "warnings", "webhook_secret"),
)
"""What `to_endpoint` reads."""
_SEALED = [
    (place, column.type)
    for place, column in enumerate(JOINED.selected_columns[name] for name in _USED)
    if isinstance(column.type, Sealed)
]
_KEYS = (_USED.index("secrets"), _USED.index("webhook_secret"))
_READ_SQLITE = f"""
SELECT json_group_array(json_array({", ".join(_USED)})) FROM (
  SELECT endpoints.*, projects.webhook_secret
  FROM json_each(?) AS one JOIN endpoints ON endpoints.id = one.value
  JOIN projects ON projects.id = endpoints.project_id)
"""  # noqa: S608 - no value is put in


_READ_POSTGRESQL = text(
    f"SELECT {', '.join(f'endpoints.{name}' for name in _USED[:-1])}, projects.{_USED[-1]}"  # noqa: S608 - our own
    " FROM endpoints JOIN projects ON projects.id = endpoints.project_id"
    " WHERE endpoints.id = ANY(:ids)"
)


@lru_cache(maxsize=1024)
def _remembered(values: tuple[Any, ...], secrets: tuple[str, ...]) -> Endpoint:
    """Mostly as it was at the claim before: to read it anew would cost as much as a delivery."""
    return _made(SimpleNamespace(**dict(zip(_USED, values, strict=True))), secrets)


def to_endpoint(row: Any, *, now: float = 0.0) -> Endpoint:
    """From a row that has what JOINED has: without the secrets whose grace is over `now`."""
    return _made(row, _secrets(row.secrets, row.webhook_secret, now))


def _made(row: Any, secrets: tuple[str, ...]) -> Endpoint:
    return Endpoint(
        id=row.id,
        project_id=row.project_id,
        url=row.url,
        secrets=secrets,
        damage=_reason(row),
        name=row.name,
        headers=own_headers(row) or {},
        timeout_seconds=row.timeout_seconds,
        schedule=(0.0, *json.loads(row.schedule)) if row.schedule else None,
        rate_limit=row.rate_limit,
        ordered=bool(row.ordered),
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


def own_headers(row: Any) -> dict[str, str] | None:
    """What a row of JOINED has of them; None also where they are damaged."""
    if row.headers is None or isinstance(row.headers, Damaged):
        return None
    headers: dict[str, str] = json.loads(row.headers)
    return headers


def _reason(row: Any) -> str | None:
    signed_with = row.webhook_secret if row.secrets is None else row.secrets
    damaged = (one for one in (signed_with, row.headers) if isinstance(one, Damaged))
    return next(map(str, damaged), None)


def _secrets(own: str | None, of_project: str, now: float) -> tuple[str, ...]:
    if own is None:
        return () if isinstance(of_project, Damaged) else (of_project,)
    return tuple(one.secret for one in valid_secrets(own, now=now))


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


DELETED = "deleted"
ENDPOINTS_MAX = 1000
"""Of one project, those of watched URLs not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFields:
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
    fields: EndpointFields
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
    fields: EndpointFields,
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
        **_columns(fields, now),
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


def list_unwell(connection: Connection, project_id: str, *, limit: int, now: float) -> list[Known]:
    """The project's endpoints that fail or are disabled; those since the shortest time first."""
    query = JOINED.where(
        endpoints.c.project_id == project_id,
        text("endpoints.state <> 'active' AND endpoints.deleted_at IS NULL"),
    )
    rows = connection.execute(query.order_by(endpoints.c.state_since.desc()).limit(limit))
    return [_known(row, now) for row in rows]


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
    before = _fields(row)
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
    """Delete an endpoint, the watches that name it, and the deliveries that it was still to get.

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


def _columns(fields: EndpointFields, now: float) -> dict[str, Any]:
    row = asdict(fields)
    for name in JSON_COLUMNS:
        if row[name] is not None:
            row[name] = json.dumps(row[name])
    return {**row, "updated_at": now}


def _kept(secrets: Sequence[Secret]) -> str:
    return json.dumps([asdict(one) for one in secrets])


def _known(row: Row[Any], now: float) -> Known:
    return Known(
        endpoint=to_endpoint(row, now=now),
        fields=_fields(row),
        managed=row.managed,
        state_since=row.created_at if row.state_since is None else row.state_since,
        created_at=row.created_at,
        updated_at=row.created_at if row.updated_at is None else row.updated_at,
    )


def _fields(row: Row[Any]) -> EndpointFields:
    """Of one whose URL is watched: it has no name but its URL, and hears what watches want."""
    return EndpointFields(
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


def unsent(endpoint_id: str, state: DeliveryState, now: float) -> Select[Any]:
    """Up to STEP that nobody sends at this moment: whoever holds a lease that ran out is dead."""
    run_out = text(claimable("deliveries")).bindparams(now=now)
    free = deliveries.c.lease_token.is_(None) | run_out
    return (
        select(deliveries.c.id)
        .where(deliveries.c.endpoint_id == endpoint_id, text(f"deliveries.state = '{state}'"), free)
        .order_by(deliveries.c.due_at)
        .limit(STEP)
        .with_for_update(skip_locked=True)
    )


def disabled_ids(connection: Connection, *conditions: ColumnElement[bool]) -> Sequence[str]:
    query = select(endpoints.c.id).where(text("endpoints.state = 'disabled'"), *conditions)
    return connection.execute(query).scalars().all()


def has_some(of: Column[str], condition: str = "true") -> ColumnElement[bool]:
    """Whether the endpoint has such a row, which an index answers however many there are.

    Asked for the first in the order of the index: PostgreSQL looks for any row by reading the
    table, where it expects many.
    """
    nearest = select(of).where(of >= endpoints.c.id, text(condition)).order_by(of).limit(1)
    return nearest.correlate(endpoints).scalar_subquery() == endpoints.c.id


def forget_all_deleted(connection: Connection, *, now: float) -> int:
    """Go on deleting what hangs on deleted endpoints; returns how many rows in this step."""
    left = or_(
        has_some(watches.c.endpoint_id),
        has_some(deliveries.c.endpoint_id, "state = 'pending'"),
        has_some(deliveries.c.endpoint_id, "state = 'held'"),
    )
    ids = disabled_ids(connection, endpoints.c.deleted_at.isnot(None), left)
    return forget_deleted(connection, ids, now=now)


def forget_deleted(connection: Connection, ids: Sequence[str], *, now: float) -> int:
    """Delete up to STEP of each kind of what hangs on these endpoints, which were deleted.

    That is the watches that name them, and the deliveries that
    they were still to get. Returns how many.
    """
    return sum(_forget(connection, id, now) for id in ids)


def _forget(connection: Connection, endpoint_id: str, now: float) -> int:
    naming = select(watches.c.id).where(watches.c.endpoint_id == endpoint_id).limit(STEP)
    gone = 0
    for table, chosen in (
        (watches, naming),
        (deliveries, unsent(endpoint_id, DeliveryState.PENDING, now)),
        (deliveries, unsent(endpoint_id, DeliveryState.HELD, now)),
    ):
        if ids := connection.execute(chosen).scalars().all():
            gone += connection.execute(
                delete(table).where(among(connection, table.c.id, ids))
            ).rowcount
    return gone
