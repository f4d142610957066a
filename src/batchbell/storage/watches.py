"""Watches: registering them, alone or by the thousand, and reading them back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, select, tuple_

from batchbell.core.errors import NotFound
from batchbell.core.model import (
    DEFAULT_EVENTS,
    Batch,
    DeliveryState,
    Dialect,
    EventType,
    Mint,
    Status,
    Watch,
)
from batchbell.storage import events
from batchbell.storage.accounts import make_due
from batchbell.storage.batches import reopen_lost, to_batch
from batchbell.storage.endpoints import ensure_endpoints
from batchbell.storage.paging import Page, page_of
from batchbell.storage.schema import accounts, batches, deliveries, endpoints, watches
from batchbell.storage.upsert import insert_missing

PAIRS_PER_STATEMENT = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What somebody asks for: tell this URL of this batch."""

    account_id: str
    batch_id: str
    url: str
    dialect: Dialect = Dialect.WATCH
    events: tuple[EventType, ...] = DEFAULT_EVENTS
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Registered:
    """The watch that answers a registration; `created` is False when it was there already."""

    watch: Watch
    created: bool


def register(
    connection: Connection,
    project_id: str,
    wanted: Sequence[Registration],
    *,
    mint: Mint,
    now: float,
) -> list[Registered]:
    """Make a watch for each registration, in their order, and have the accounts swept at once.

    A batch that has ended already is told of at once; a lost one begins a new life.
    """
    found = _ensure_batches(connection, project_id, wanted, now=now)
    reopen_lost(connection, found.values(), now=now)
    endpoint_ids = ensure_endpoints(
        connection, project_id, [w.url for w in wanted], mint=mint, now=now
    )
    pairs = [(found[w.account_id, w.batch_id].key, endpoint_ids[w.url]) for w in wanted]
    before = _by_pair(connection, pairs)
    rows = _rows(project_id, zip(wanted, pairs, strict=True), before, mint=mint, now=now)
    insert_missing(connection, watches, rows)
    after = _by_pair(connection, pairs) if rows else before
    made = {row["id"] for row in rows}
    ended = [
        batch for batch in found.values() if batch.status.ended and batch.status is not Status.LOST
    ]
    events.tell_late(connection, ended, sorted(made), mint=mint, now=now)
    if len(ended) < len(found):
        make_due(connection, sorted({w.account_id for w in wanted}), now=now)
    return [_answer(after[pair], made) for pair in pairs]


def _answer(watch: Watch, made: set[str]) -> Registered:
    created = watch.id in made
    made.discard(watch.id)
    return Registered(watch, created)


def _ensure_batches(
    connection: Connection, project_id: str, wanted: Sequence[Registration], *, now: float
) -> dict[tuple[str, str], Batch]:
    names = sorted({(w.account_id, w.batch_id) for w in wanted})
    found = _find_batches(connection, names)
    missing = [name for name in names if name not in found]
    if not missing:
        return found
    rows = [
        {
            "project_id": project_id,
            "account_id": account_id,
            "id": batch_id,
            "status": Status.VALIDATING,
            "generation": 1,
            "registered_at": now,
            "updated_at": now,
            "check_at": 0.0,
        }
        for account_id, batch_id in missing
    ]
    insert_missing(connection, batches, rows)
    return found | _find_batches(connection, missing)


def _find_batches(
    connection: Connection, names: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Batch]:
    found: dict[tuple[str, str], Batch] = {}
    for start in range(0, len(names), PAIRS_PER_STATEMENT):
        query = (
            select(batches, accounts.c.name.label("account"), accounts.c.provider)
            .join(accounts, accounts.c.id == batches.c.account_id)
            .where(
                tuple_(batches.c.account_id, batches.c.id).in_(
                    names[start : start + PAIRS_PER_STATEMENT]
                )
            )
            .order_by(batches.c.key)
            .with_for_update(of=batches)
        )
        for row in connection.execute(query):
            found[row.account_id, row.id] = to_batch(row)
    return found


def _rows(
    project_id: str,
    wanted: Any,
    before: Mapping[tuple[int, str], Watch],
    *,
    mint: Mint,
    now: float,
) -> list[dict[str, Any]]:
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for registration, pair in wanted:
        if pair in before or pair in rows:
            continue
        rows[pair] = {
            "id": mint("wat"),
            "project_id": project_id,
            "batch_key": pair[0],
            "endpoint_id": pair[1],
            "dialect": registration.dialect,
            "events": json.dumps(list(registration.events)),
            "metadata": json.dumps(dict(registration.metadata), separators=(",", ":")),
            "created_at": now,
        }
    return [rows[pair] for pair in sorted(rows)]


def _by_pair(
    connection: Connection, pairs: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], Watch]:
    found: dict[tuple[int, str], Watch] = {}
    for start in range(0, len(pairs), PAIRS_PER_STATEMENT):
        query = _joined().where(
            tuple_(watches.c.batch_key, watches.c.endpoint_id).in_(
                pairs[start : start + PAIRS_PER_STATEMENT]
            )
        )
        for row in connection.execute(query):
            found[row.batch_key, row.endpoint_id] = _watch(row)
    return found


def get_watch(connection: Connection, project_id: str, watch_id: str) -> Watch:
    """One watch of the project. Raises NotFound."""
    query = _joined().where(watches.c.project_id == project_id, watches.c.id == watch_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound("watch", watch_id)
    return _watch(row)


def list_watches(
    connection: Connection,
    project_id: str,
    *,
    limit: int,
    after: str | None = None,
    batch_id: str | None = None,
) -> Page[Watch]:
    """The project's watches, newest first."""
    query = _joined().where(watches.c.project_id == project_id)
    if after is not None:
        query = query.where(watches.c.id < get_watch(connection, project_id, after).id)
    if batch_id is not None:
        query = query.where(batches.c.id == batch_id)
    rows = connection.execute(query.order_by(watches.c.id.desc()).limit(limit + 1))
    return page_of([_watch(row) for row in rows], limit)


def delete_watch(connection: Connection, project_id: str, watch_id: str) -> None:
    """Forget the watch, and what it was still to be told. Raises NotFound.

    What was delivered, or is being sent at this moment, stays in the log.
    """
    get_watch(connection, project_id, watch_id)
    untold = (
        deliveries.c.watch_id == watch_id,
        deliveries.c.state.in_([DeliveryState.PENDING, DeliveryState.HELD]),
        deliveries.c.lease_token.is_(None),
    )
    connection.execute(delete(deliveries).where(*untold))
    connection.execute(delete(watches).where(watches.c.id == watch_id))


def _joined() -> Select[Any]:
    return (
        select(watches, endpoints.c.url, batches.c.id.label("batch_id"))
        .join(endpoints, endpoints.c.id == watches.c.endpoint_id)
        .join(batches, batches.c.key == watches.c.batch_key)
    )


def _watch(row: Row[Any]) -> Watch:
    return Watch(
        id=row.id,
        project_id=row.project_id,
        batch_key=row.batch_key,
        batch_id=row.batch_id,
        endpoint_id=row.endpoint_id,
        url=row.url,
        dialect=Dialect(row.dialect),
        events=tuple(EventType(word) for word in json.loads(row.events)),
        metadata=json.loads(row.metadata),
        created_at=row.created_at,
    )
