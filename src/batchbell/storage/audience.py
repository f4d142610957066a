"""Who is to hear of an event: the batch's own watches, and those who hear of a whole project."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, select

from batchbell.core import lifecycle
from batchbell.core.model import Batch, BatchKind, Dialect, EndpointState, EventType
from batchbell.core.notices import Notice
from batchbell.core.travelling import ResultsMode
from batchbell.storage.bulk import among
from batchbell.storage.schema import endpoints, watches

MANAGED = and_(endpoints.c.managed, endpoints.c.deleted_at.is_(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """An endpoint that is to hear, and on whose behalf."""

    endpoint_id: str
    endpoint_state: str
    events: tuple[EventType, ...]
    watch_id: str | None = None
    watch_metadata: str | None = None
    dialect: str = Dialect.WATCH
    accounts: frozenset[str] | None = None
    """Names; None is all of the project."""
    metadata: Mapping[str, str] | None = None
    """Pairs that a batch must have among its own."""
    results: str = ResultsMode.LINK
    there_since: float = 0.0
    """When its endpoint was made. A watch hears of what was there before it, too."""

    def minds(self, batch: Batch) -> bool:
        """Whether this batch is one of those that it wants to hear of."""
        if self.accounts is not None and batch.account not in self.accounts:
            return False
        own = (batch.snapshot.metadata if batch.snapshot else None) or {}
        return all(own.get(key) == value for key, value in (self.metadata or {}).items())

    def hears(self, notice: Notice) -> bool:
        """Whether it is to hear of this notice: it has no metadata, and may have no account."""
        if notice.type not in self.events or notice.endpoint_id == self.endpoint_id:
            return False
        if self.metadata:
            return False
        return None in (notice.account, self.accounts) or notice.account in (self.accounts or ())


class Audience:
    """Those who may want to hear of some batches."""

    def __init__(self, connection: Connection, told: Collection[Batch]) -> None:
        self._watching = watching(connection, [batch.key for batch in told])
        self._standing = standing(connection, {batch.project_id for batch in told})

    def for_event(self, batch: Batch, type_: EventType) -> dict[EventType, list[Listener]]:
        """Who hears of it, under the type that each of them wants.

        An endpoint hears once: where a watch names it, on behalf of that watch.
        """
        chosen: dict[str, tuple[EventType, Listener]] = {}
        for listener in self._listeners(batch):
            heard = lifecycle.type_for(type_, listener.events)
            if heard is not None:
                chosen.setdefault(listener.endpoint_id, (heard, listener))
        told: dict[EventType, list[Listener]] = defaultdict(list)
        for heard, listener in chosen.values():
            told[heard].append(listener)
        return told

    def _listeners(self, batch: Batch) -> Iterable[Listener]:
        yield from self._watching.get(batch.key, ())
        if batch.kind is BatchKind.PART:
            return  # they hear of the whole submission
        for listener in self._standing.get(batch.project_id, ()):
            if listener.minds(batch):
                yield listener


def watching(connection: Connection, keys: Sequence[int]) -> dict[int, list[Listener]]:
    """The watches of these batches, by the batch's key."""
    if not keys:
        return {}
    query = (
        select(
            watches.c.id,
            watches.c.batch_key,
            watches.c.endpoint_id,
            watches.c.dialect,
            watches.c.events,
            watches.c.metadata,
            watches.c.results,
            endpoints.c.state,
        )
        .join(endpoints, endpoints.c.id == watches.c.endpoint_id)
        .where(among(connection, watches.c.batch_key, keys), endpoints.c.deleted_at.is_(None))
        .order_by(watches.c.id)
    )
    found: dict[int, list[Listener]] = defaultdict(list)
    for row in connection.execute(query):
        found[row.batch_key].append(_watcher(row))
    return found


def _watcher(row: Any) -> Listener:
    return Listener(
        endpoint_id=row.endpoint_id,
        endpoint_state=row.state,
        events=_types(row.events),
        watch_id=row.id,
        watch_metadata=row.metadata,
        dialect=row.dialect,
        results=row.results,
    )


def standing(connection: Connection, project_ids: Collection[str]) -> dict[str, list[Listener]]:
    """The endpoints that hear of a whole project, by project."""
    if not project_ids:
        return {}
    query = (
        select(
            endpoints.c.id,
            endpoints.c.project_id,
            endpoints.c.state,
            endpoints.c.event_types,
            endpoints.c.accounts,
            endpoints.c.metadata,
            endpoints.c.results,
            endpoints.c.created_at,
        )
        .where(among(connection, endpoints.c.project_id, sorted(project_ids)), MANAGED)
        .order_by(endpoints.c.id)
    )
    found: dict[str, list[Listener]] = defaultdict(list)
    for row in connection.execute(query):
        found[row.project_id].append(_stander(row))
    return found


def _stander(row: Any) -> Listener:
    return Listener(
        endpoint_id=row.id,
        endpoint_state=row.state,
        events=_types(row.event_types),
        accounts=frozenset(json.loads(row.accounts)) if row.accounts else None,
        metadata=json.loads(row.metadata) if row.metadata else None,
        results=row.results or ResultsMode.LINK,
        there_since=row.created_at,
    )


def _types(kept: str) -> tuple[EventType, ...]:
    return tuple(EventType(word) for word in json.loads(kept))


def held(listener: Listener) -> bool:
    """Whether what it is to hear waits until the endpoint is enabled."""
    return listener.endpoint_state == EndpointState.DISABLED
