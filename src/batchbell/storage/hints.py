"""Hints: what providers said themselves of batches that have ended, until somebody has looked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, and_, delete, func, select, update

from batchbell.core import polling
from batchbell.core.account import Account
from batchbell.core.model import Batch, Status
from batchbell.storage import accounts, batches
from batchbell.storage.accounts import make_due
from batchbell.storage.batches import Known
from batchbell.storage.bulk import among, among_pairs, insert_missing, update_all
from batchbell.storage.engine import ACCOUNTS, wake
from batchbell.storage.schema import accounts as account_table
from batchbell.storage.schema import batches as batch_table
from batchbell.storage.schema import hints

KEEP_SECONDS = 86_400.0
"""So long an id is remembered: longer than a message that is sent again could be taken."""


class Taken(StrEnum):
    """What became of a hint that is genuine."""

    ACCEPTED = "accepted"
    """The batch is looked at now."""
    REPLAYED = "replayed"
    """It came before: nothing changes."""
    LATE = "late"
    """The batch has ended here already: nothing changes."""
    IGNORED = "ignored"
    """It is of no batch that is watched: nothing changes, unless the account discovers."""


@dataclass(frozen=True, slots=True)
class Received:
    """A genuine hint, and how the batch may be called that it is about."""

    account_id: str
    id: str
    batch_ids: tuple[str, ...]


def receiver(connection: Connection, account_id: str) -> tuple[Account, tuple[str, ...]] | None:
    """The account of this id, whosever it is, and the secrets that it has here."""
    query = select(*accounts.SHOWN).where(
        account_table.c.id == account_id, account_table.c.removed_at.is_(None)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return accounts.to_account(row), accounts.hook_secrets_of(connection, account_id)


def take(connection: Connection, received: Sequence[Received], *, now: float) -> list[Taken]:
    """Make checks of the batches due; what became of each hint, in their order."""
    ids = sorted({one.account_id for one in received})
    _lock(connection, ids, now=now)
    known = _known(connection, received)
    old = _remembered(connection, received)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    answers = []
    for one in received:
        name = (one.account_id, one.id)
        found = [id for id in one.batch_ids if (one.account_id, id) in known]
        if name in old or name in rows:
            answers.append(Taken.REPLAYED)
        elif not found:
            answers.append(Taken.IGNORED)
        elif known[one.account_id, found[0]]:
            answers.append(Taken.LATE)
        else:
            rows[name] = _row(one, found[0], now)
            answers.append(Taken.ACCEPTED)
    insert_missing(connection, hints, [rows[name] for name in sorted(rows)])
    if rows:
        wake(connection, ACCOUNTS)
    _discover(connection, received, answers, now=now)
    return answers


def _lock(connection: Connection, ids: Sequence[str], *, now: float) -> None:
    """In one order, and first, as a sweep's write does."""
    one_by_one = select(account_table.c.id).where(among(connection, account_table.c.id, ids))
    connection.execute(one_by_one.order_by(account_table.c.id).with_for_update())
    noted = update(account_table).where(among(connection, account_table.c.id, ids))
    connection.execute(noted.values(hook_at=now))


def _known(connection: Connection, received: Sequence[Received]) -> dict[tuple[str, str], bool]:
    """Those of the batches that there are, and whether each has ended; one that is lost has not."""
    names = [(one.account_id, id) for one in received for id in one.batch_ids]
    if not names:
        return {}
    columns = (batch_table.c.account_id, batch_table.c.id)
    over = and_(batch_table.c.ended_at.isnot(None), batch_table.c.status != Status.LOST)
    query = select(*columns, over)
    rows = connection.execute(query.where(among_pairs(connection, columns, names)))
    return {(account_id, id): bool(ended) for account_id, id, ended in rows}


def _remembered(connection: Connection, received: Sequence[Received]) -> set[tuple[str, str]]:
    columns = (hints.c.account_id, hints.c.id)
    names = [(one.account_id, one.id) for one in received]
    rows = connection.execute(select(*columns).where(among_pairs(connection, columns, names)))
    return {(account_id, id) for account_id, id in rows}


def _row(one: Received, batch_id: str, now: float) -> dict[str, Any]:
    return {
        "account_id": one.account_id,
        "id": one.id,
        "batch_id": batch_id,
        "received_at": now,
        "due_at": now,
        "looks": 0,
    }


def _discover(
    connection: Connection, received: Sequence[Received], answers: Sequence[Taken], *, now: float
) -> None:
    """A batch that nobody has named is in the list, which accounts that discover read."""
    asked = {
        one.account_id
        for one, answer in zip(received, answers, strict=True)
        if answer is Taken.IGNORED and one.batch_ids
    }
    if not asked:
        return
    discovers = account_table.c.discover_since.isnot(None)
    query = select(account_table.c.id).where(
        among(connection, account_table.c.id, sorted(asked)), discovers
    )
    if found := connection.execute(query).scalars().all():
        make_due(connection, found, now=now)


@dataclass(frozen=True, slots=True)
class Due:
    """A hint that is due."""

    key: int
    batch_id: str
    looks: int


@dataclass(frozen=True, slots=True)
class Hinted:
    """What a look at the batches that hints are about starts from."""

    hints: Sequence[Due]
    known: Known
    """The batches that have not ended, or were lost; the others of the account are waiting."""


def due(connection: Connection, account_id: str, *, now: float) -> Hinted:
    """The hints of an account that are due, and the batches that they are about."""
    query = (
        select(hints.c.key, hints.c.batch_id, hints.c.looks)
        .where(hints.c.account_id == account_id, hints.c.due_at <= now)
        .order_by(hints.c.key)
    )
    found = [Due(*row) for row in connection.execute(query)]
    names = sorted({one.batch_id for one in found})
    return Hinted(found, batches.known_of(connection, account_id, names, now=now))


def looked(
    connection: Connection, account_id: str, looked_at: Sequence[Due], *, now: float
) -> None:
    """Note that the batches were looked at: where one has not ended, it is looked at again soon."""
    open_ = batches.unended_ids(connection, account_id, sorted({one.batch_id for one in looked_at}))
    again = {
        one.key: polling.look_again(one.looks, now) if one.batch_id in open_ else None
        for one in looked_at
    }
    rows = [{"key": one.key, "due_at": again[one.key], "looks": one.looks + 1} for one in looked_at]
    update_all(connection, hints, "key", rows)


def note_ends(
    connection: Connection,
    account_id: str,
    ended: Sequence[Batch],
    *,
    announces: Collection[Status],
    now: float,
) -> None:
    """Note whether the provider has announced these ends, of which we see for the first time.

    Call while the account's row is locked. `announces`: of other ends it says nothing.
    """
    expected = [batch for batch in ended if batch.status in announces]
    arrivals = accounts.arrivals_of(connection, account_id) if expected else None
    if arrivals is None or arrivals.last_at is None:
        return  # none has ever come: nothing is expected
    hinted = _hinted_at(connection, account_id, sorted({batch.id for batch in expected}))
    announced = [
        polling.was_announced(
            ended_at=batch.ended_at,
            known_since=batch.registered_at,
            hinted_at=hinted.get(batch.id),
            now=now,
        )
        for batch in expected
    ]
    after = polling.after_ends(arrivals, announced, now=now)
    if after != arrivals:
        change = update(account_table).where(account_table.c.id == account_id)
        values = {"hooks_in_a_row": after.in_a_row, "hook_missed_at": after.missed_at}
        connection.execute(change.values(values))


def _hinted_at(connection: Connection, account_id: str, ids: Sequence[str]) -> dict[str, float]:
    query = select(hints.c.batch_id, func.min(hints.c.received_at)).where(
        hints.c.account_id == account_id, among(connection, hints.c.batch_id, ids)
    )
    rows = connection.execute(query.group_by(hints.c.batch_id))
    return {row.batch_id: row[1] for row in rows}


def forget_old(connection: Connection, *, before: float, limit: int) -> int:
    """Forget up to `limit` hints that were received before a time; returns how many."""
    old = (
        select(hints.c.key)
        .where(hints.c.received_at < before)
        .order_by(hints.c.received_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    keys = connection.execute(old).scalars().all()
    if not keys:
        return 0
    return connection.execute(delete(hints).where(among(connection, hints.c.key, keys))).rowcount
