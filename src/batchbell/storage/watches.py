"""Watches: registering them, alone or by the thousand, and reading them back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, Row, Select, bindparam, delete, select, update

from batchbell.core.alarms import FIRST_LOOK_SECONDS
from batchbell.core.attachment import ResultsMode
from batchbell.core.errors import InvalidRequest, NotFound
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
from batchbell.storage import outbox
from batchbell.storage.accounts import make_due, refuse_removed
from batchbell.storage.batches import joined_batches, reopen_lost, to_batch
from batchbell.storage.bulk import (
    among,
    among_listed,
    among_pairs,
    in_one_step,
    insert_values,
    inserted,
    keep_plans,
    listed,
    plan_anew,
)
from batchbell.storage.endpoints import ensure_endpoints, named_urls
from batchbell.storage.engine import dialect_of
from batchbell.storage.events import keys_of
from batchbell.storage.paging import Page, Walk, apart, first_of, page_of
from batchbell.storage.schema import batches, deliveries, endpoints, watches

Name = tuple[str, str]
"""An account and the provider's id of a batch."""
Pair = tuple[int, str]
"""A batch's key and an endpoint's id: what makes a watch the same."""


class Registration(Struct, frozen=True, kw_only=True):
    """What somebody asks for: tell this URL, or this endpoint, of this batch."""

    account_id: str
    batch_id: str
    url: str = ""
    endpoint_id: str | None = None
    """In place of a URL: an endpoint that is there."""
    dialect: Dialect = Dialect.WATCH
    events: tuple[EventType, ...] = DEFAULT_EVENTS
    metadata: Mapping[str, str] = {}  # each has one of its own
    results: ResultsMode = ResultsMode.LINK
    asked: frozenset[str] = frozenset()
    """Those of OPTIONS that the caller has named, and did not leave to the default."""


OPTIONS = ("events", "metadata", "results")
"""What somebody may want of a watch beside its batch and its URL."""


@dataclass(frozen=True, slots=True)
class Difference:
    """An option that was asked for of a watch that is there with another."""

    position: int
    """Of the registration, from 0."""
    watch: Watch
    option: str
    there: Any
    asked: Any


class WatchDiffers(InvalidRequest):
    """A batch is watched for this URL already, and otherwise than is asked for."""

    def __init__(self, differences: Sequence[Difference]) -> None:
        first = differences[0]
        super().__init__(
            f"Batch {first.watch.batch_id!r} is watched for this URL already, with other options.",
            param=first.option,
            code="watch_differs",
            status=409,
        )
        self.differences = tuple(differences)


class Target(NamedTuple):
    """An endpoint and its URL."""

    id: str
    url: str


class Locked(NamedTuple):
    """What registering must know of a batch that nobody else writes to now."""

    key: int
    status: Status


class Registered(NamedTuple):
    """The watch that answers a registration; `created` is False when it was there already."""

    watch: Watch
    created: bool


def register(
    connection: Connection,
    project_id: str,
    wanted: Sequence[Registration],
    *,
    strict: bool = False,
    mint: Mint,
    now: float,
) -> list[Registered]:
    """Make a watch for each registration, in their order, and have the accounts swept at once.

    The watcher of a batch that has ended already hears of it at once; a lost one begins a new life.
    A watch that is there stays as it is. Raises InvalidRequest for an endpoint that the project has
    not, and an account that was removed; and where it is `strict` WatchDiffers for a watch that is
    there with other options than were asked for.
    """
    targets = _targets(connection, project_id, wanted, mint=mint, now=now)
    found, added = _ensure_batches(connection, project_id, wanted, now=now)
    if len(added) < len(found):
        plan_anew(connection)
    over = _whole(connection, [one.key for one in found.values() if one.status.ended])
    reopen_lost(connection, over, now=now)
    pairs = [
        (found[w.account_id, w.batch_id].key, target.id)
        for w, target in zip(wanted, targets, strict=True)
    ]
    known = _by_pair(connection, [pair for pair in pairs if pair[0] not in added])
    asked = zip(wanted, pairs, targets, strict=True)
    new = _new_watches(project_id, asked, known, mint=mint, now=now)
    if strict:
        _refuse_differences(wanted, [new.get(pair) or known[pair] for pair in pairs])
    keep_plans(connection)
    _write(connection, [new[pair] for pair in sorted(new)])
    made = {watch.id for watch in new.values()}
    keys = {watch.batch_key for watch in new.values()}
    ended = [batch for batch in over if _is_over(batch.status) and batch.key in keys]
    if ended:
        plan_anew(connection)
    outbox.announce_late(connection, ended, sorted(made), mint=mint, now=now)
    return [_answer(new.get(pair) or known[pair], made) for pair in pairs]


def _refuse_differences(wanted: Sequence[Registration], found: Sequence[Watch]) -> None:
    differences = [
        Difference(position, watch, option, getattr(watch, option), getattr(one, option))
        for position, (one, watch) in enumerate(zip(wanted, found, strict=True))
        for option in OPTIONS
        if option in one.asked and not _same(getattr(watch, option), getattr(one, option))
    ]
    if differences:
        raise WatchDiffers(differences)


def _same(there: Any, asked: Any) -> bool:
    """The order of event types makes no difference."""
    if isinstance(there, tuple):
        return set(there) == set(asked)
    return bool(there == asked)


def _targets(
    connection: Connection,
    project_id: str,
    wanted: Sequence[Registration],
    *,
    mint: Mint,
    now: float,
) -> list[Target]:
    """Where each of them hears of it, in their order."""
    named = named_urls(connection, project_id, {w.endpoint_id for w in wanted if w.endpoint_id})
    urls = [w.url for w in wanted if not w.endpoint_id]
    made = ensure_endpoints(connection, project_id, urls, mint=mint, now=now) if urls else {}
    return [
        Target(w.endpoint_id, named[w.endpoint_id]) if w.endpoint_id else Target(made[w.url], w.url)
        for w in wanted
    ]


def _is_over(status: Status) -> bool:
    return status.ended and status is not Status.LOST


def _answer(watch: Watch, made: set[str]) -> Registered:
    created = watch.id in made
    made.discard(watch.id)
    return Registered(watch, created)


def _ensure_batches(
    connection: Connection, project_id: str, wanted: Sequence[Registration], *, now: float
) -> tuple[dict[Name, Locked], set[int]]:
    """All of them, and the keys of those that are new: nobody watches them yet.

    Locked until the transaction ends: who records an end of one waits, and sees the watch.
    The account is made due first, because a sweep's write locks it before its batches too.
    """
    names = sorted({(w.account_id, w.batch_id) for w in wanted})
    known = _statuses(connection, names)
    open_ = sorted({name[0] for name in names if not _is_over(known.get(name, Status.LOST))})
    if open_:
        make_due(connection, open_, now=now)
    found = _locked(connection, list(known))
    added = _add_batches(
        connection, project_id, [name for name in names if name not in found], now=now
    )
    refuse_removed(connection, sorted({name[0] for name in names}))
    found |= added
    if late := [name for name in names if name not in found]:
        plan_anew(connection)
        found |= _locked(connection, late)
    return found, {one.key for one in added.values()}


def _add_batches(
    connection: Connection, project_id: str, names: Sequence[Name], *, now: float
) -> dict[Name, Locked]:
    """Those that were not there; another process may have added the others meanwhile."""
    if not names:
        return {}
    keep_plans(connection)
    blank = new_batch(project_id, *BLANK, now=now)
    shared = {name: value for name, value in blank.items() if name not in NAME}
    new = inserted(connection, batches, NAME, names, shared)
    return {name: Locked(key, NEW_STATUS) for name, key in new.items()}


NAME = ("account_id", "id")
BLANK = ("", "")
NEW_STATUS = Status.VALIDATING


def new_batch(project_id: str, account_id: str, batch_id: str, *, now: float) -> dict[str, Any]:
    """The row of a batch that nobody has seen yet."""
    return {
        "project_id": project_id,
        "account_id": account_id,
        "id": batch_id,
        "status": NEW_STATUS.value,
        "generation": 1,
        "registered_at": now,
        "updated_at": now,
        "check_at": 0.0,
        "progress_at": now,
        "alarm_at": now + FIRST_LOOK_SECONDS,
    }


def _statuses(connection: Connection, names: Sequence[Name]) -> dict[Name, Status]:
    """Of those that are there; the names are in order.

    Each account is asked by itself: PostgreSQL would join pairs with all batches that there are.
    """
    is_sqlite = dialect_of(connection) == "sqlite"
    found: dict[Name, Status] = {}
    for account_id, of_account in groupby(names, key=itemgetter(0)):
        ids = listed(connection, [id for _, id in of_account])
        rows: Iterable[tuple[str, str]] = (
            in_one_step(connection, STATUSES_SQLITE, (account_id, ids))
            if is_sqlite
            else connection.execute(STATUSES, {"account_id": account_id, "ids": ids})
        )
        found |= {(account_id, id): Status(word) for id, word in rows}
    return found


STATUSES = select(batches.c.id, batches.c.status).where(
    batches.c.account_id == bindparam("account_id"),
    among_listed("postgresql", batches.c.id, "ids"),
)
STATUSES_SQLITE = """
    SELECT json_group_array(json_array(id, status)) FROM batches
    WHERE account_id = ? AND id IN (SELECT value FROM json_each(?))
"""


def _locked(connection: Connection, names: Sequence[Name]) -> dict[Name, Locked]:
    if not names:
        return {}
    b = batches.c
    named = among_pairs(connection, (b.account_id, b.id), names)
    query = select(b.account_id, b.id, b.key, b.status).where(named).order_by(b.key)
    rows = connection.execute(query.with_for_update())
    return {(account_id, id): Locked(key, Status(word)) for account_id, id, key, word in rows}


def _whole(connection: Connection, keys: Sequence[int]) -> list[Batch]:
    """All that is kept of batches that are locked; few are asked for."""
    if not keys:
        return []
    query = joined_batches().where(among(connection, batches.c.key, keys)).order_by(batches.c.key)
    return [to_batch(row) for row in connection.execute(query)]


def _new_watches(
    project_id: str,
    wanted: Iterable[tuple[Registration, Pair, Target]],
    known: Mapping[Pair, Watch],
    *,
    mint: Mint,
    now: float,
) -> dict[Pair, Watch]:
    new: dict[Pair, Watch] = {}
    for registration, pair, target in wanted:
        if pair in known or pair in new:
            continue
        new[pair] = Watch(
            id=mint("wat"),
            project_id=project_id,
            batch_key=pair[0],
            batch_id=registration.batch_id,
            endpoint_id=pair[1],
            url=target.url,
            dialect=registration.dialect,
            events=tuple(registration.events),
            metadata=dict(registration.metadata),
            created_at=now,
            results=registration.results,
        )
    return new


@lru_cache
def _words(events: tuple[EventType, ...]) -> str:
    return json.dumps(events)


def _write(connection: Connection, made: Sequence[Watch]) -> None:
    """Insert watches that were made at one time; what all of them want is sent once.

    Their batches are locked, so that nobody else has made one since those that are there were read.
    """
    names: tuple[str, ...] = OWN
    rows: list[tuple[Any, ...]] = [(one.id, one.batch_key, one.endpoint_id) for one in made]
    wants = [_wanted(one) for one in made]
    shared = {"project_id": made[0].project_id, "created_at": made[0].created_at} if made else {}
    if len(set(wants)) == 1:
        shared |= zip(WANTED, wants[0], strict=True)
    else:
        names += WANTED
        rows = [one + wanted for one, wanted in zip(rows, wants, strict=True)]
    insert_values(connection, watches, names, rows, shared)


OWN = ("id", "batch_key", "endpoint_id")
WANTED = ("dialect", *OPTIONS)


def _wanted(watch: Watch) -> tuple[str, ...]:
    """What is written of what somebody wants of a watch, in the order of WANTED."""
    return (
        watch.dialect.value,
        _words(watch.events),
        json.dumps(watch.metadata, separators=(",", ":")) if watch.metadata else "{}",
        watch.results.value,
    )


def _by_pair(connection: Connection, pairs: Sequence[Pair]) -> dict[Pair, Watch]:
    if not pairs:
        return {}
    query = _joined().where(
        among_pairs(connection, (watches.c.batch_key, watches.c.endpoint_id), pairs)
    )
    return {(row.batch_key, row.endpoint_id): _watch(row) for row in connection.execute(query)}


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
    query = _joined()
    if batch_id is None:
        query = query.where(watches.c.project_id == project_id)
    else:
        keys = keys_of(connection, project_id, batch_id)
        # Not by the project too: SQLite would read all its watches in order.
        query = query.where(among(connection, watches.c.batch_key, keys))
    if after is not None:
        query = query.where(watches.c.id < get_watch(connection, project_id, after).id)
    rows = connection.execute(query.order_by(watches.c.id.desc()).limit(limit + 1))
    return page_of([_watch(row) for row in rows], limit)


def of_key(connection: Connection, batch_key: int, *, limit: int) -> Page[Watch]:
    """The watches of one batch, the newest first."""
    of_batch = apart(select(watches.c.id).where(watches.c.batch_key == batch_key))
    ids, _ = first_of(connection, [Walk(of_batch)], ["id"], limit + 1)
    query = _joined().where(among(connection, watches.c.id, [row.id for row in ids]))
    rows = connection.execute(query.order_by(watches.c.id.desc()))
    return page_of([_watch(row) for row in rows], limit)


def change_watch(
    connection: Connection, project_id: str, watch_id: str, changes: Mapping[str, Any]
) -> Watch:
    """Change some of the OPTIONS, for events that are recorded from now on. Raises NotFound."""
    watch = get_watch(connection, project_id, watch_id)
    lock = select(batches.c.key).where(batches.c.key == watch.batch_key)
    connection.execute(lock.with_for_update())
    changed = replace(get_watch(connection, project_id, watch_id), **changes)
    row = dict(zip(WANTED, _wanted(changed), strict=True))
    values = {name: row[name] for name in changes}
    if values:
        connection.execute(update(watches).where(watches.c.id == watch_id).values(values))
    return get_watch(connection, project_id, watch_id)


def delete_watch(connection: Connection, project_id: str, watch_id: str) -> None:
    """Forget the watch, and the deliveries that it was still to get. Raises NotFound.

    What was delivered stays in the log. What is being sent at this moment does too: it ends with
    that attempt, whatever comes of it.
    """
    watch = get_watch(connection, project_id, watch_id)
    # Who records an event of the batch now has read this watch: wait for its delivery.
    lock = select(batches.c.key).where(batches.c.key == watch.batch_key)
    connection.execute(lock.with_for_update())
    untold = (
        deliveries.c.watch_id == watch_id,
        deliveries.c.state.in_([DeliveryState.PENDING, DeliveryState.HELD]),
    )
    # All are changed first: whoever writes what came of one has written it, or finds this.
    connection.execute(update(deliveries).where(*untold).values(ends=True))
    connection.execute(delete(deliveries).where(*untold, deliveries.c.lease_token.is_(None)))
    connection.execute(delete(watches).where(watches.c.id == watch_id))


def _joined() -> Select[Any]:
    return (
        select(watches, endpoints.c.url, batches.c.id.label("batch_id"))
        .join(endpoints, endpoints.c.id == watches.c.endpoint_id)
        .join(batches, batches.c.key == watches.c.batch_key)
        .where(endpoints.c.deleted_at.is_(None))
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
        results=ResultsMode(row.results),
    )
