"""Batches: which are open, what a sighting changed, and reading them back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    update,
)

from batchbell.core import alarms, lifecycle, submission
from batchbell.core.attachment import ResultsState
from batchbell.core.errors import AmbiguousBatch, NotFound
from batchbell.core.lifecycle import Observation
from batchbell.core.model import (
    Batch,
    BatchKind,
    Mint,
    Sighting,
    Snapshot,
    Status,
    StatusChange,
)
from batchbell.core.submission import PartState
from batchbell.storage import outbox
from batchbell.storage.bulk import among, among_listed, listed, update_all
from batchbell.storage.engine import (
    ALARMS,
    RESULTS,
    SUBMISSIONS,
    dialect_of,
    storable,
    wake,
)
from batchbell.storage.projects import has_batch
from batchbell.storage.rows import joined, places, reader, writer
from batchbell.storage.schema import accounts, batches, parts, results, submissions

SNAPSHOT = msgspec.json.Decoder(Snapshot)
HISTORY = msgspec.json.Decoder(tuple[StatusChange, ...])
FIXED = ("key", "project_id", "account_id", "id", "registered_at", "webhook_refused", "kind")
"""What a row has from the begin on. All other columns with a field may be written."""

STATUSES = {status.value: status for status in Status}
LOST_MAX = 1_000
CHECK_MAX_SECONDS = 2 * lifecycle.POISON_SECONDS
"""No batch waits longer: a time further ahead was written before the clock was set back."""


class OpenBatch(NamedTuple):
    """What a sweep needs to know of a batch: enough to see that nothing has changed.

    A tuple, as 100,000 of them may be made for one sweep.
    """

    id: str
    fingerprint: str | None
    created_at: float | None
    status: Status = Status.VALIDATING
    updated_at: float = 0.0
    seen: bool = False
    """Whether the provider has ever shown it."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a sweep starts from."""

    open: Sequence[OpenBatch]
    """What has not ended, and may be looked at now."""
    waiting: int = 0
    """How many more have not ended, and are not looked at yet."""
    lost: Mapping[str, bool] = field(default_factory=dict)
    """The latest that were lost, and whether each is to be asked for now."""


class Change(Struct, frozen=True):
    """A batch whose status a sighting has moved, and from where."""

    batch: Batch
    before: Status


def known(connection: Connection, account_id: str, *, now: float) -> Known:
    """What the next sweep of the account starts from."""
    due = open_batches(connection, account_id, now=now)
    unended = _unended(account_id).where(~_may_be_looked_at(now))
    waiting: int = connection.execute(unended).scalar_one()
    return Known(due, waiting, _lost(connection, account_id, now=now))


def known_of(connection: Connection, account_id: str, ids: Sequence[str], *, now: float) -> Known:
    """What a sweep starts from that looks at these of the account's batches alone."""
    due = open_batches(connection, account_id, now=now, ids=ids)
    unended: int = connection.execute(_unended(account_id)).scalar_one()
    lost = select(batches.c.id).where(
        batches.c.account_id == account_id,
        batches.c.status == Status.LOST,
        among(connection, batches.c.id, ids),
    )
    back = dict.fromkeys(connection.execute(lost).scalars(), True)
    return Known(due, unended - len(due), back)


def _unended(account_id: str) -> Select[int]:
    return select(func.count()).where(
        batches.c.account_id == account_id,
        batches.c.ended_at.is_(None),
        batches.c.kind != BatchKind.JOINED,
    )


def unended_ids(connection: Connection, account_id: str, ids: Sequence[str]) -> set[str]:
    """Those of the ids that the account has a batch of that has not ended."""
    query = select(batches.c.id).where(
        batches.c.account_id == account_id,
        batches.c.ended_at.is_(None),
        among(connection, batches.c.id, ids),
    )
    return set(connection.execute(query).scalars())


def open_batches(
    connection: Connection, account_id: str, *, now: float, ids: Sequence[str] | None = None
) -> list[OpenBatch]:
    """The account's batches, or those of the ids, that have not ended and may be looked at now.

    The fingerprint is left out where the next sighting changes something even if it is the same:
    it ends what is missing or in doubt, or is the first step of a new life.
    """
    restarted = and_(batches.c.generation > 1, batches.c.status == Status.VALIDATING)
    unsettled = or_(
        batches.c.missing_since.isnot(None),
        batches.c.look_error.isnot(None),
        batches.c.doubts > 0,
        restarted,
    )
    query = select(
        batches.c.id,
        case((unsettled, None), else_=batches.c.fingerprint),
        batches.c.provider_created_at,
        batches.c.status,
        batches.c.updated_at,
        batches.c.fingerprint.isnot(None),
    ).where(
        batches.c.account_id == account_id,
        batches.c.ended_at.is_(None),
        _may_be_looked_at(now),
        batches.c.kind != BatchKind.JOINED,
    )
    if ids is not None:
        query = query.where(among(connection, batches.c.id, ids))
    return [
        OpenBatch(id, fingerprint, created_at, STATUSES[status], updated_at, bool(seen))
        for id, fingerprint, created_at, status, updated_at, seen in connection.execute(query)
    ]


def _may_be_looked_at(now: float) -> ColumnElement[bool]:
    return or_(batches.c.check_at <= now, batches.c.check_at > now + CHECK_MAX_SECONDS)


def _lost(connection: Connection, account_id: str, *, now: float) -> dict[str, bool]:
    query = (
        select(batches.c.id, batches.c.check_at <= now)
        .where(
            batches.c.account_id == account_id,
            batches.c.status == Status.LOST,
            batches.c.ended_at > now - lifecycle.LOST_WATCH_SECONDS,
        )
        .order_by(batches.c.ended_at.desc())
        .limit(LOST_MAX)
    )
    return {id: bool(due) for id, due in connection.execute(query)}


def observe(
    connection: Connection,
    *,
    account_id: str,
    sightings: Sequence[Sighting],
    mint: Mint,
    now: float,
) -> list[Change]:
    """Write what the sightings make of their batches, with the events and deliveries they cause.

    Call inside a transaction that holds the account's lease. Ids that are not known are passed
    over. Returns the batches whose status moved.
    """
    found = _by_id(connection, account_id, [sighting.id for sighting in sightings])
    pairs = [
        (found[s.id][0], lifecycle.observe(found[s.id][0], s, now))
        for s in sightings
        if s.id in found
    ]
    changed = [seen.batch for was, seen in pairs if seen.batch != was]
    before = {was.key: row for was, row in found.values()}
    save(connection, changed + _outdated(found, pairs), before)
    if any(seen.batch.alarm_at <= now and not seen.batch.status.ended for _, seen in pairs):
        wake(connection, ALARMS)
    happened = [(seen.batch, seen.event) for _, seen in pairs if seen.event is not None]
    outbox.record(connection, happened, mint=mint, now=now)
    back = [
        seen.batch
        for was, seen in pairs
        if was.status is Status.LOST and seen.batch.status is not Status.LOST
    ]
    wake_submissions(connection, [batch for batch, _ in happened], back=back, now=now)
    return [
        Change(seen.batch, was.status) for was, seen in pairs if seen.batch.status is not was.status
    ]


def known_ids(connection: Connection, account_id: str, ids: Sequence[str]) -> set[str]:
    """Those of the ids that the account has a batch of."""
    query = select(batches.c.id).where(batches.c.account_id == account_id)
    return set(connection.execute(query.where(among(connection, batches.c.id, ids))).scalars())


def _outdated(
    found: Mapping[str, tuple[Batch, Row[Any]]], pairs: Sequence[tuple[Batch, Observation]]
) -> list[Batch]:
    """Those that did not change, but whose fingerprint another version of us has written."""
    return [
        was
        for was, seen in pairs
        if seen.batch == was
        and was.snapshot is not None
        and found[was.id][1].fingerprint != was.snapshot.fingerprint
    ]


def reopen_lost(connection: Connection, found: Iterable[Batch], *, now: float) -> None:
    """Begin a new life of those batches that are lost."""
    lost = [batch for batch in found if batch.status is Status.LOST]
    save(connection, [lifecycle.reopen(batch, now) for batch in lost])
    wake_submissions(connection, (), back=lost, now=now)


def save(
    connection: Connection, changed: Sequence[Batch], before: Mapping[int, Row[Any]] | None = None
) -> None:
    """Write batches over what is known of them; their rows must be locked.

    With the rows as they are, by their key, columns that none of them changes are left alone: a
    column that is written is written to its indexes, too.
    """
    rows = [_values(batch) for batch in changed]
    names = None if before is None else _different(rows, before)
    update_all(connection, batches, "key", rows, names=names)


def _different(
    rows: Sequence[Mapping[str, Any]], before: Mapping[int, Row[Any]]
) -> tuple[str, ...]:
    """The key, and the columns in which one of the rows differs from what is there."""
    same = {name: _places[name] for name in (rows[0] if rows else ()) if name != "key"}
    for row in rows:
        there = before[row["key"]]
        for name in [name for name, place in same.items() if row[name] != there[place]]:
            del same[name]
    return tuple(name for name in (rows[0] if rows else ()) if name not in same)


def _by_id(
    connection: Connection, account_id: str, ids: Sequence[str]
) -> dict[str, tuple[Batch, Row[Any]]]:
    """The batches, locked, and the row of each."""
    asked = {"account": account_id, "ids": listed(connection, ids)}
    rows = connection.execute(_of_ids(dialect_of(connection)), asked).all()
    return {row.id: (to_batch(row), row) for row in rows}


@cache
def _of_ids(dialect: str) -> Select[Any]:
    """Made once: to make it takes longer than to find a batch.

    In one order everywhere, lest two wait for each other's rows; SQLite has one writer.
    """
    query = joined_batches().where(
        batches.c.account_id == bindparam("account"),
        among_listed(dialect, batches.c.id, "ids"),
    )
    return (
        query if dialect == "sqlite" else query.order_by(batches.c.key).with_for_update(of=batches)
    )


def _values(batch: Batch) -> dict[str, Any]:
    """Whatever may change of a row: what is a field of the batch, and what follows from them."""
    seen, outcome = batch.snapshot, batch.outcome
    return {
        "key": batch.key,
        **_changing(batch),
        "outcome": outcome and outcome.value,
        "model": _named(seen.model[:MODEL_MAX] if seen and seen.model else None),
        "marks": " ".join(marks(seen.metadata or {})) if seen else "",
        "fingerprint": seen.fingerprint if seen else None,
        "snapshot": _encoded(seen) if seen else None,
        "history": _encoded(batch.history),
        "provider_created_at": seen.created_at if seen else None,
        "input_file_id": _named(seen.input_file_id if seen else None),
        "output_file_id": _named(seen.output_file_id if seen else None),
        "error_file_id": _named(seen.error_file_id if seen else None),
        "expires_at": alarms.expires_at(batch),
        "unknown_status": _named(alarms.unknown_status(batch)),
    }


def alarm_values(batch: Batch) -> dict[str, Any]:
    """What is kept of its alarms, and of its progress."""
    return {
        "progress_at": batch.progress_at,
        "alarm_at": batch.alarm_at,
        "alarms": joined(batch.alarms),
    }


def _named(word: str | None) -> str | None:
    return storable(word) if word else None


def _encoded(seen: Snapshot | tuple[StatusChange, ...]) -> str:
    try:
        return msgspec.json.encode(seen).decode()
    except UnicodeEncodeError:
        return msgspec.json.encode(_storable(msgspec.to_builtins(seen))).decode()


def _storable(value: Any) -> Any:
    match value:
        case str():
            return storable(value)
        case dict():
            return {storable(key): _storable(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_storable(inner) for inner in value]
        case _:
            return value


def get_batch(
    connection: Connection, project_id: str, batch_id: str, *, account_id: str | None = None
) -> Batch:
    """One batch of the project, or of one account, by the provider's id.

    Raises NotFound, and AmbiguousBatch where several accounts have one.
    """
    query = joined_batches().where(has_batch(project_id), batches.c.id == batch_id)
    if account_id is not None:
        query = query.where(batches.c.account_id == account_id)
    rows = connection.execute(query.order_by(batches.c.key)).all()
    if not rows:
        raise NotFound("batch", batch_id)
    if len(rows) > 1:
        raise AmbiguousBatch(batch_id, [row.account for row in rows])
    return to_batch(rows[0])


MODEL_MAX = 100
MARKS_MAX = 32
"""So that an entry of `ix_batches_found` stays small enough for PostgreSQL, whatever comes."""


def marks(metadata: Mapping[str, str]) -> list[str]:
    """A short digest of each pair, by which a batch is found: of the first 32 pairs."""
    pairs = list(metadata.items())[:MARKS_MAX]
    return sorted({blake2b(json.dumps(pair).encode(), digest_size=6).hexdigest() for pair in pairs})


def count_by_status(connection: Connection) -> dict[str, int]:
    """How many batches are open, by status; to count what has ended would cost ever more."""
    query = (
        select(batches.c.status, func.count())
        .where(batches.c.ended_at.is_(None))
        .group_by(batches.c.status)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def joined_batches() -> Select[Any]:
    """What `to_batch` reads: a batch with its account."""
    return select(
        batches,
        accounts.c.name.label("account"),
        accounts.c.provider,
        accounts.c.reason.label("account_reason"),
    ).join(accounts, accounts.c.id == batches.c.account_id)


_changing = writer(Batch, batches, but=(*FIXED, "snapshot", "history"))
_decoders = {"snapshot": SNAPSHOT.decode, "history": HISTORY.decode}
_read = reader(Batch, joined_batches(), conversions=_decoders)


_places = places(joined_batches())


def to_batch(row: Row[Any]) -> Batch:
    """From a row of `joined_batches`, which may have more columns behind them."""
    found = _read(row)
    # A row of before progress was kept says 0: nothing is known since it was registered.
    return found if found.progress_at else replace(found, progress_at=found.registered_at)


def wake_submissions(
    connection: Connection, changed: Sequence[Batch], *, back: Sequence[Batch] = (), now: float
) -> None:
    """After something became of these batches: have the submissions of their accounts looked at.

    Only for what is a part and has ended: then its own submission goes on, and there is room for
    others. `back` are those that were lost and are not any more: their submissions run again, also
    those that had ended.
    """
    ended = [batch for batch in changed if batch.kind is BatchKind.PART and batch.status.ended]
    account_ids = sorted({batch.account_id for batch in ended})
    lost = [batch.key for batch in back if batch.kind is BatchKind.PART]
    found_again = _submissions_of(connection, lost)
    ids = {*_open_of(connection, account_ids), *found_again.values()}
    if not ids:
        return
    _lock(connection, sorted(ids))
    _resume(connection, [*found_again], now=now)
    waiting = (
        parts.c.state == PartState.WAITING,
        parts.c.due_at > now,
        among(connection, parts.c.submission_id, sorted(ids)),
    )
    connection.execute(update(parts).where(*waiting).values(due_at=now))
    stirred = update(submissions).where(among(connection, submissions.c.id, sorted(ids)))
    connection.execute(stirred.values(due_at=now))
    wake(connection, SUBMISSIONS)


def _open_of(connection: Connection, account_ids: Sequence[str]) -> Sequence[str]:
    """The submissions of accounts that have not ended."""
    if not account_ids:
        return ()
    whole = select(batches.c.key).where(
        batches.c.account_id.in_(account_ids),
        batches.c.kind == BatchKind.JOINED,
        batches.c.ended_at.is_(None),
    )
    query = select(submissions.c.id).where(submissions.c.batch_key.in_(whole))
    return connection.execute(query).scalars().all()


def _submissions_of(connection: Connection, keys: Sequence[int]) -> dict[int, str]:
    """The submission of each of these parts, but for those whose payloads were removed on request.

    A part that is seen again must not have the answers of the others fetched again.
    """
    if not keys:
        return {}
    query = (
        select(parts.c.batch_key, parts.c.submission_id)
        .join(submissions, submissions.c.id == parts.c.submission_id)
        .join(batches, batches.c.key == submissions.c.batch_key)
        .where(among(connection, parts.c.batch_key, keys), batches.c.expunged_at.is_(None))
    )
    return {row.batch_key: row.submission_id for row in connection.execute(query)}


def _lock(connection: Connection, ids: Sequence[str]) -> None:
    """Lock submissions in one order everywhere: two that take the same ones do not deadlock."""
    query = select(submissions.c.id).where(among(connection, submissions.c.id, ids))
    connection.execute(query.order_by(submissions.c.id).with_for_update()).all()


def _resume(connection: Connection, keys: Sequence[int], *, now: float) -> None:
    """Have these parts run again, and begin anew what had ended without them.

    Their submissions must be locked: they come before their own batches, as when a step ends.
    """
    if not keys:
        return
    these = among(connection, parts.c.batch_key, keys)
    running = {"state": PartState.RUNNING, "looked_through": False}
    connection.execute(
        update(parts).where(these, parts.c.state == PartState.ENDED).values(**running)
    )
    whole = (
        select(submissions.c.batch_key)
        .join(parts, parts.c.submission_id == submissions.c.id)
        .where(these)
    )
    query = joined_batches().where(batches.c.key.in_(whole), batches.c.ended_at.isnot(None))
    rows = connection.execute(query.order_by(batches.c.key).with_for_update(of=batches)).all()
    save(connection, [submission.begin_anew(to_batch(row), now) for row in rows])


def join_soon(connection: Connection, batch: Batch, *, now: float) -> None:
    """After a part's results were merged or given up: joined results that wait for them are due."""
    if batch.kind is not BatchKind.PART:
        return
    whole = (
        select(submissions.c.batch_key)
        .join(parts, parts.c.submission_id == submissions.c.id)
        .where(parts.c.batch_key == batch.key)
    )
    waiting = (
        results.c.batch_key.in_(whole),
        results.c.state == ResultsState.WAITING,
        results.c.lease_token.is_(None),
        results.c.due_at > now,
    )
    if connection.execute(update(results).where(*waiting).values(due_at=now)).rowcount:
        wake(connection, RESULTS)
