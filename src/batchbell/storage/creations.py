"""Calls through the gateway that make a batch, from the intent until it is known what came of it.

A row is `asked` while the provider answers, or whoever asked has died; `doubtful` after an unclear
answer; `found` with the batch that the call has made; `nothing` where none was found. A row is
deleted as soon as a clear answer came.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, and_, delete, or_, select, update

from batchbell.core import twins
from batchbell.core.twins import Marks
from batchbell.storage.bulk import insert_missing
from batchbell.storage.engine import CREATIONS, storable, wake
from batchbell.storage.schema import batches
from batchbell.storage.schema import creations as table
from batchbell.storage.watches import Registration

FIRST_LOOK_SECONDS = 10.0
"""After this a call that has no answer yet is looked after: its process may have died."""
REMEMBERED_SECONDS = 600.0
"""How long an equal call is answered with what an unclear one has made."""

_tag = msgspec.json.Decoder(tuple[str, str])
_registrations = msgspec.json.Decoder(list[Registration])


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """One call that makes a batch."""

    id: str
    project_id: str
    account_id: str
    fingerprint: str
    """Of what was asked for: an equal call has the same."""
    marks: Marks
    registrations: Sequence[Registration]
    """Who asked to hear of the batch."""
    idempotency_key: str | None = None
    state: str = "asked"
    batch_id: str | None = None
    ask_again_at: float = 0.0
    looks: int = 0
    unlisted: bool = False
    """The provider has no list of batches to look at."""


def intend(connection: Connection, made: Creation) -> None:
    """Note that the provider is about to be asked."""
    marks = made.marks
    row = {
        "id": made.id,
        "project_id": made.project_id,
        "account_id": made.account_id,
        "fingerprint": made.fingerprint,
        "idempotency_key": made.idempotency_key,
        "input_file_id": storable(marks.input_file_id or ""),
        "lines": marks.lines,
        "tag": marks.tag and storable(msgspec.json.encode(marks.tag).decode()),
        "endpoint": None if marks.endpoint is None else storable(marks.endpoint),
        "metadata": storable(msgspec.json.encode(marks.metadata or {}).decode()),
        "registrations": storable(msgspec.json.encode(list(made.registrations)).decode()),
        "state": "asked",
        "asked_at": marks.asked_at,
        "ask_again_at": marks.asked_at + twins.CREATE_SECONDS + twins.LOST_LOOK_FOR_SECONDS,
        "due_at": marks.asked_at + FIRST_LOOK_SECONDS,
        "looks": 0,
        "unlisted": False,
    }
    insert_missing(connection, table, [row])


def doubt(connection: Connection, id: str, *, ask_again_at: float, now: float) -> None:
    """Have the batch looked for: the answer was unclear."""
    asked = (table.c.id == id, table.c.state == "asked")
    doubted = {"state": "doubtful", "ask_again_at": ask_again_at, "due_at": now}
    connection.execute(update(table).where(*asked).values(**doubted))
    wake(connection, CREATIONS)


def settle(connection: Connection, id: str) -> None:
    """A clear answer came: nobody needs to look."""
    connection.execute(delete(table).where(table.c.id == id))


def get(connection: Connection, id: str) -> Creation | None:
    """One call; None where it was settled."""
    row = connection.execute(select(table).where(table.c.id == id)).one_or_none()
    return None if row is None else _creation(row)


def equal_call(connection: Connection, made: Creation, *, now: float) -> Creation | None:
    """The latest call that asked for the same, if it is not known to have made nothing.

    Two calls with different keys are never the same.
    """
    same = table.c.fingerprint == made.fingerprint
    if made.idempotency_key is not None:
        key = table.c.idempotency_key
        same = and_(same, or_(key.is_(None), key == made.idempotency_key))
    found = and_(table.c.state == "found", table.c.ended_at > now - REMEMBERED_SECONDS)
    query = (
        select(table)
        .where(
            table.c.project_id == made.project_id,
            table.c.account_id == made.account_id,
            same,
            or_(table.c.state.in_(("asked", "doubtful")), found),
        )
        .order_by(table.c.asked_at.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else _creation(row)


def claim_due(
    connection: Connection, *, busy: Collection[str], now: float, lease_seconds: float
) -> Creation | None:
    """Take the call that waits longest to be looked after, of an account that is not `busy`."""
    due = (
        select(table.c.id)
        .where(
            table.c.due_at <= now,
            table.c.state.in_(("asked", "doubtful")),
            table.c.account_id.not_in(list(busy)),
        )
        .order_by(table.c.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    claim = update(table).where(table.c.id == due.scalar_subquery())
    row = connection.execute(
        claim.values(due_at=now + lease_seconds).returning(*table.c)
    ).one_or_none()
    return None if row is None else _creation(row)


def hold(connection: Connection, held: Creation, *, now: float, lease_seconds: float) -> None:
    """Lengthen the lease of a look that goes on."""
    connection.execute(update(table).where(_open(held)).values(due_at=now + lease_seconds))


def next_due(connection: Connection) -> float | None:
    """When a call is next to be looked after."""
    query = select(table.c.due_at).where(table.c.due_at.isnot(None)).order_by(table.c.due_at)
    soonest: float | None = connection.execute(query.limit(1)).scalar_one_or_none()
    return soonest


def taken(connection: Connection, held: Creation, ids: Sequence[str]) -> set[str]:
    """Those of the batches that this call has not made: known before it, or another call's."""
    named = [storable(id) for id in ids]
    before = select(batches.c.id).where(
        batches.c.account_id == held.account_id,
        batches.c.id.in_(named),
        batches.c.registered_at < held.marks.asked_at,
    )
    others = select(table.c.batch_id).where(
        table.c.account_id == held.account_id, table.c.batch_id.in_(named), table.c.id != held.id
    )
    return {*connection.execute(before).scalars(), *connection.execute(others).scalars()}


def looked(
    connection: Connection, held: Creation, *, whole: bool, unlisted: bool, due_at: float
) -> None:
    """Note a look that showed nothing of the call."""
    values = {"looks": held.looks + whole, "unlisted": unlisted, "due_at": due_at}
    connection.execute(update(table).where(_open(held)).values(**values))


def end(connection: Connection, held: Creation, *, batch_id: str | None, now: float) -> None:
    """Note the batch that the call has made; None where none was found."""
    values = {
        "state": "nothing" if batch_id is None else "found",
        "batch_id": batch_id,
        "due_at": None,
        "ended_at": now,
    }
    connection.execute(update(table).where(_open(held)).values(**values))


def forget_old(connection: Connection, *, before: float, limit: int) -> int:
    """Forget up to `limit` calls that ended before a time; returns how many."""
    old = select(table.c.id).where(table.c.ended_at < before).limit(limit)
    gone = connection.execute(delete(table).where(table.c.id.in_(old.scalar_subquery())))
    return gone.rowcount


def _open(held: Creation) -> ColumnElement[bool]:
    return and_(table.c.id == held.id, table.c.ended_at.is_(None))


def _creation(row: Row[Any]) -> Creation:
    return Creation(
        id=row.id,
        project_id=row.project_id,
        account_id=row.account_id,
        fingerprint=row.fingerprint,
        idempotency_key=row.idempotency_key,
        marks=Marks(
            asked_at=row.asked_at,
            input_file_id=row.input_file_id or None,
            lines=row.lines,
            tag=row.tag and _tag.decode(row.tag),
            endpoint=row.endpoint,
            metadata=msgspec.json.decode(row.metadata),
        ),
        registrations=_registrations.decode(row.registrations),
        state=row.state,
        batch_id=row.batch_id,
        ask_again_at=row.ask_again_at,
        looks=row.looks,
        unlisted=row.unlisted,
    )
