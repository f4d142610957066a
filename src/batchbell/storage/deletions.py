"""Deletions at the provider: what is due, in whose hands it is, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Update, and_, exists, func, or_, select, update

from batchbell.core import deletion as rules
from batchbell.core.deletion import Deletes, Deleting, Deletion, DeletionState, ProviderFile
from batchbell.core.errors import LeaseLost
from batchbell.core.model import BETWEEN, Batch, BatchKind, Status
from batchbell.core.results import Collecting, Results, Tally
from batchbell.storage import submissions
from batchbell.storage.batches import joined_batches, to_batch
from batchbell.storage.bulk import insert_missing
from batchbell.storage.engine import RESULTS, storable, wake
from batchbell.storage.results import by_id, of_key, of_keys
from batchbell.storage.schema import batches, deletions, parts, several_inputs
from batchbell.storage.schema import submissions as wholes

FILES = msgspec.json.Decoder(tuple[ProviderFile, ...])


def request(
    connection: Connection, held: Collecting, tally: Tally, deletes: Deletes, *, now: float
) -> None:
    """Have the provider's files of a batch deleted whose results are kept in this transaction.

    Those of a part stay until the whole submission is kept: they go with it.
    """
    batch = held.batch
    if deletes is Deletes.NONE or batch.kind is BatchKind.PART:
        return
    joined = batch.kind is BatchKind.JOINED
    whole = submissions.of_batch(connection, batch.key) if joined else None
    decided = rules.decide(deletes, batch, tally, whole.parts if whole else ())
    if decided is None:
        return
    due = bool(decided.files)
    row = {
        "results_id": held.results.id,
        "account_id": batch.account_id,
        "state": DeletionState.DUE if due else DeletionState.KEPT,
        "files": _encoded(decided.files),
        "reason": None if decided.reason is None else storable(decided.reason),
        "tries": 0,
        "due_at": now if due else None,
        "ended_at": None if due else now,
    }
    insert_missing(connection, deletions, [row])
    wake(connection, RESULTS)


def shown(connection: Connection, batch: Batch) -> tuple[Results | None, Deletion | None]:
    """The newest results of a batch, and what becomes of the files that they were made of.

    Those of a part share the fate of the whole submission's.
    """
    found = of_key(connection, batch.key)
    whole = found
    if batch.kind is BatchKind.PART:
        key = select(wholes.c.batch_key).join(parts, parts.c.submission_id == wholes.c.id)
        of_whole = connection.execute(key.where(parts.c.batch_key == batch.key)).scalar()
        whole = None if of_whole is None else of_key(connection, of_whole)
    if whole is None:
        return found, None
    query = select(deletions).where(deletions.c.results_id == whole.id)
    row = connection.execute(query).one_or_none()
    return found, None if row is None else _deletion(row)


def is_deleted(connection: Connection, results_id: str) -> bool:
    """Whether the files that the results were made of were deleted at the provider."""
    query = select(deletions.c.state).where(deletions.c.results_id == results_id)
    return connection.execute(query).scalar() in (DeletionState.DUE, DeletionState.DELETED)


def claim_due(
    connection: Connection, *, now: float, lease_seconds: float, token: str
) -> Deleting | None:
    """Take what has been due for longest; None when nothing is."""
    due = (
        select(deletions.c.results_id)
        .where(deletions.c.state == DeletionState.DUE, deletions.c.due_at <= now)
        .where(or_(deletions.c.lease_until.is_(None), deletions.c.lease_until <= now))
        .order_by(deletions.c.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    taken = {"lease_until": now + lease_seconds, "lease_token": token}
    claim = update(deletions).where(deletions.c.results_id == due.scalar_subquery())
    claim = claim.values(tries=deletions.c.tries + 1, **taken)
    row = connection.execute(claim.returning(*deletions.c)).one_or_none()
    if row is None:
        return None
    found = by_id(connection, row.results_id)
    assert found is not None
    of_batch = select(batches.c.id).where(batches.c.key == found.batch_key)
    return Deleting(
        results=found,
        batch_id=connection.execute(of_batch).scalar_one(),
        account_id=row.account_id,
        files=FILES.decode(row.files),
        tries=row.tries,
        lease_token=token,
    )


def next_due(connection: Connection) -> float | None:
    """When a worker is next wanted."""
    when = func.coalesce(deletions.c.lease_until, deletions.c.due_at)
    query = select(func.min(when)).where(deletions.c.state == DeletionState.DUE)
    soonest: float | None = connection.execute(query).scalar_one()
    return soonest


def user_of(connection: Connection, account_id: str, file_id: str) -> str | None:
    """The id of a batch of the account that needs this input still; None where none does.

    The input may be several files, and so may that of the batch: one that they share is enough.
    """
    files = {storable(file_id), *storable(file_id).split(BETWEEN)}
    b = batches.c
    named = select(b.key, b.input_file_id).where(b.account_id == account_id, several_inputs)
    shared = [
        key
        for key, inputs in connection.execute(named)
        if not files.isdisjoint(inputs.split(BETWEEN))
    ]
    same = (b.account_id == account_id, b.input_file_id.in_(sorted(files)))
    query = joined_batches().where(or_(and_(*same), b.key.in_(shared))).order_by(b.key)
    found = [to_batch(row) for row in connection.execute(query)]
    known = of_keys(connection, [batch.key for batch in found])
    return next((one.id for one in found if rules.needs_input(one, known.get(one.key))), None)


def any_unseen(connection: Connection, held: Deleting) -> bool:
    """Whether some batch may need an input, of which nothing is known yet.

    Who registers one later has to know that its input may be gone.
    """
    unseen = (
        batches.c.project_id == held.results.project_id,
        batches.c.status == Status.VALIDATING,
        batches.c.registered_at <= held.results.ended_at,
        batches.c.account_id == held.account_id,
        batches.c.model.is_(None),  # in the index, too: most that were seen have one
        batches.c.input_file_id.is_(None),
        batches.c.kind != BatchKind.JOINED,
    )
    return bool(connection.execute(select(exists().where(*unseen))).scalar())


def go_on(
    connection: Connection, held: Deleting, left: Sequence[ProviderFile], *, now: float
) -> None:
    """Give back what has come some way, to be gone on with at once. Raises LeaseLost."""
    _back(connection, held, files=_encoded(left), tries=0, due_at=now)


def put_off(
    connection: Connection,
    held: Deleting,
    left: Sequence[ProviderFile],
    *,
    reason: str,
    next_at: float,
    others_at: float | None,
) -> None:
    """Try again at `next_at`. Raises LeaseLost.

    No other deletion of the account is tried before `others_at`.
    """
    words = storable(reason)
    _back(connection, held, files=_encoded(left), due_at=next_at, reason=words)
    if others_at is not None:
        _rest(connection, held.account_id, until=others_at)


def _rest(connection: Connection, account_id: str, *, until: float) -> None:
    """Whoever else does so at this moment has the rows that are passed over."""
    sooner = (
        select(deletions.c.results_id)
        .where(deletions.c.account_id == account_id, deletions.c.state == DeletionState.DUE)
        .where(deletions.c.lease_token.is_(None), deletions.c.due_at < until)
        .with_for_update(skip_locked=True)
    )
    later = update(deletions).where(deletions.c.results_id.in_(sooner))
    connection.execute(later.values(due_at=until))


def end(
    connection: Connection,
    held: Deleting,
    state: DeletionState,
    left: Sequence[ProviderFile] = (),
    *,
    reason: str | None,
    now: float,
) -> None:
    """Write what came of it, and what is still there. Raises LeaseLost."""
    words = None if reason is None else storable(reason)
    ended = {"state": state, "due_at": None, "ended_at": now, "reason": words}
    _back(connection, held, files=_encoded(left), **ended)


def _back(connection: Connection, held: Deleting, **values: Any) -> None:
    change = _of(held).values(lease_until=None, lease_token=None, **values)
    if connection.execute(change).rowcount != 1:
        raise LeaseLost(f"deletion of {held.results.id}")


def _of(held: Deleting) -> Update:
    return update(deletions).where(
        deletions.c.results_id == held.results.id, deletions.c.lease_token == held.lease_token
    )


def _encoded(files: Sequence[ProviderFile]) -> str:
    return storable(msgspec.json.encode(files).decode())


def _deletion(row: Row[Any]) -> Deletion:
    return Deletion(
        state=DeletionState(row.state),
        reason=row.reason,
        due_at=row.due_at,
        ended_at=row.ended_at,
    )
