"""Forgetting what is old, in bounded steps, and removing a batch's payloads on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from msgspec.structs import replace
from sqlalchemy import (
    Connection,
    delete,
    func,
    or_,
    select,
    tuple_,
    update,
)

from batchbell.core import payload
from batchbell.core.attachment import ResultsState
from batchbell.core.errors import InvalidRequest, NotFound
from batchbell.core.ids import first_id
from batchbell.core.model import (
    Batch,
    DeliveryState,
)
from batchbell.storage.batches import joined_batches, save, to_batch
from batchbell.storage.bulk import among, among_pairs, update_all
from batchbell.storage.engine import RESULTS, wake
from batchbell.storage.events import keys_of
from batchbell.storage.schema import (
    attempts,
    batches,
    deliveries,
    events,
    parts,
    results,
    submissions,
    watches,
)

DELIVERIES_STEP = 2000
"""Deliveries that one step of forgetting deletes at most, with their attempts."""


def forget_batches(connection: Connection, *, before: float, limit: int) -> int:
    """Delete up to `limit` batches that ended before a time, with all that hangs on them.

    What still waits to be delivered keeps its batch, and so do its results. One of which very many
    received goes in several steps, its deliveries first. Returns how many were dealt with.
    """
    waiting = (
        select(deliveries.c.id)
        .join(events, events.c.id == deliveries.c.event_id)
        .where(events.c.batch_key == batches.c.key, deliveries.c.state == DeliveryState.PENDING)
        .exists()
    )
    kept = select(results.c.id).where(results.c.batch_key == batches.c.key).exists()
    old = (
        select(batches.c.key)
        .where(batches.c.ended_at.isnot(None), batches.c.ended_at < before, ~waiting, ~kept)
        .where(batches.c.updated_at < before)
        .order_by(batches.c.ended_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    keys = connection.execute(old).scalars().all()
    if not keys:
        return 0
    # Asked again now that they are locked: something may have been sent again meanwhile.
    settled = select(batches.c.key).where(among(connection, batches.c.key, keys), ~waiting, ~kept)
    free = set(connection.execute(settled).scalars())
    old_keys = [key for key in keys if key in free]
    small = _few_deliveries(connection, old_keys)
    if not small and old_keys:
        _forget_deliveries(connection, old_keys[0])
        return 1
    done = delete(batches).where(among(connection, batches.c.key, small))
    return connection.execute(done).rowcount


def _few_deliveries(connection: Connection, keys: Sequence[int]) -> list[int]:
    """Those of the batches, from the first on, that have DELIVERIES_STEP together."""
    counts = (
        select(events.c.batch_key, func.count())
        .join(deliveries, deliveries.c.event_id == events.c.id)
        .where(among(connection, events.c.batch_key, keys))
        .group_by(events.c.batch_key)
    )
    number: dict[int, int] = {row[0]: row[1] for row in connection.execute(counts)}
    totals = accumulate(number.get(key, 0) for key in keys)
    return [key for key, total in zip(keys, totals, strict=True) if total <= DELIVERIES_STEP]


def _forget_deliveries(connection: Connection, key: int) -> None:
    some = (
        select(deliveries.c.id)
        .join(events, events.c.id == deliveries.c.event_id)
        .where(events.c.batch_key == key, deliveries.c.state != DeliveryState.PENDING)
        .limit(DELIVERIES_STEP)
    )
    ids = connection.execute(some).scalars().all()
    connection.execute(delete(deliveries).where(among(connection, deliveries.c.id, ids)))


Cursor = tuple[str, int]
START: Cursor = ("", 0)


@dataclass(frozen=True, slots=True)
class Aged:
    """How many attempts a step has deleted, and where the next one goes on."""

    deleted: int
    cursor: Cursor


def forget_attempts(
    connection: Connection, *, before: float, after: Cursor = START, limit: int
) -> Aged:
    """Delete those of the next `limit` attempts that were made before a time.

    What a young attempt of an old delivery leaves in the way is walked over. At the end the
    cursor is `START` again. Attempts that another process has locked are left to it.
    """
    place = tuple_(attempts.c.delivery_id, attempts.c.number)
    step = (
        select(attempts.c.delivery_id, attempts.c.number, attempts.c.started_at)
        .where(place > after, attempts.c.delivery_id < first_id("dlv", at=before))
        .order_by(attempts.c.delivery_id, attempts.c.number)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = connection.execute(step).all()
    old = [(row.delivery_id, row.number) for row in rows if row.started_at < before]
    if old:
        columns = (attempts.c.delivery_id, attempts.c.number)
        connection.execute(delete(attempts).where(among_pairs(connection, columns, old)))
    cursor = (rows[-1].delivery_id, rows[-1].number) if len(rows) == limit else START
    return Aged(len(old), cursor)


def forget_notices(connection: Connection, *, before: float, limit: int) -> int:
    """Delete up to `limit` notices that were written before a time, with their deliveries.

    What still waits to be delivered keeps its notice. Returns how many were deleted.
    """
    waiting = (
        select(deliveries.c.id)
        .where(deliveries.c.event_id == events.c.id, deliveries.c.state == DeliveryState.PENDING)
        .exists()
    )
    old = (
        select(events.c.id)
        .where(events.c.batch_key.is_(None), events.c.recorded_at < before, ~waiting)
        .order_by(events.c.recorded_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = connection.execute(old).scalars().all()
    if not ids:
        return 0
    # Asked again now that they are locked: something may have been sent again meanwhile.
    done = delete(events).where(among(connection, events.c.id, ids), ~waiting)
    return connection.execute(done).rowcount


STEP = 1000
"""Deliveries that one transaction empties."""
ANSWERS = ("detail", "location", "response_headers", "response_body", "request_headers")
"""What an attempt keeps of its receiver's words, and of ours."""


def expunge(connection: Connection, project_id: str, batch_id: str, *, now: float) -> Batch:
    """Leave nothing of the batch's content, of the watches' words or of the receivers' answers.

    Means every batch of that id in the project, whatever the account, and all parts of a
    submission. Its events are bare from then on, also when they are sent again. Of very many
    deliveries the rest is left to `strip_more`. Twice is no error. Raises NotFound, and
    InvalidRequest (409) while one of them runs or a delivery waits.
    """
    found = _locked(connection, project_id, batch_id)
    keys = [batch.key for batch in found]
    _check_done(connection, found, keys)
    expunged = [_without_payload(batch, now) for batch in found]
    save(connection, expunged)
    _strip(connection, keys)
    return expunged[0]


def _locked(connection: Connection, project_id: str, batch_id: str) -> list[Batch]:
    """No delivery of theirs begins again, and they are not forgotten, while they are locked."""
    of_parts = (
        select(parts.c.batch_key)
        .join(submissions, submissions.c.id == parts.c.submission_id)
        .where(submissions.c.project_id == project_id, submissions.c.id == batch_id)
        .where(parts.c.batch_key.isnot(None))
    )
    keys = {*keys_of(connection, project_id, batch_id), *connection.execute(of_parts).scalars()}
    query = joined_batches().where(among(connection, batches.c.key, sorted(keys)))
    rows = connection.execute(query.order_by(batches.c.key).with_for_update(of=batches)).all()
    if not rows:
        raise NotFound("batch", batch_id)
    return [to_batch(row) for row in rows]


def _check_done(connection: Connection, found: Sequence[Batch], keys: Sequence[int]) -> None:
    for batch in found:
        if batch.ended_at is None:
            raise _conflict(
                f"Batch {batch.id} of account {batch.account!r} has not ended"
                f" ({batch.status.value}): expunge it when it has."
            )
    waiting = (
        select(func.count())
        .select_from(deliveries)
        .join(events, events.c.id == deliveries.c.event_id)
        .where(among(connection, events.c.batch_key, keys))
        .where(deliveries.c.state == DeliveryState.PENDING)
    )
    if count := connection.execute(waiting).scalar_one():
        raise _conflict(
            f"{count} deliveries of batch {found[0].id} wait to be sent: expunge it when they have"
            " been, or delete the watches or endpoints that they are for."
        )


def _conflict(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="batch_id", code="conflict", status=409)


def _without_payload(batch: Batch, now: float) -> Batch:
    seen = batch.snapshot
    bare = seen and replace(seen, metadata=None, problems=(), usage=None)
    return replace(batch, snapshot=bare, look_error=None, expunged_at=batch.expunged_at or now)


def _strip(connection: Connection, keys: Sequence[int]) -> None:
    _let_results_go(connection, keys)
    whole = select(submissions.c.id).where(among(connection, submissions.c.batch_key, keys))
    theirs = parts.c.submission_id.in_(whole)
    digested = among(connection, submissions.c.batch_key, keys)
    connection.execute(update(submissions).where(digested).values(fingerprint=None))
    connection.execute(update(parts).where(theirs).values(reason=None))
    of_batch = among(connection, events.c.batch_key, keys)
    bodies = connection.execute(select(events.c.id, events.c.body).where(of_batch)).all()
    bare = [{"id": row.id, "body": payload.bare(row.body)} for row in bodies]
    update_all(connection, events, "id", bare)
    connection.execute(
        update(watches).where(among(connection, watches.c.batch_key, keys)).values(metadata="{}")
    )
    _strip_deliveries(connection, keys)


def strip_more(connection: Connection, project_id: str, batch_id: str) -> bool:
    """Go on with the deliveries of a batch that is being expunged; whether there was more.

    Call it until there was not.
    """
    keys = [batch.key for batch in _locked(connection, project_id, batch_id)]
    return _strip_deliveries(connection, keys)


def _strip_deliveries(connection: Connection, keys: Sequence[int]) -> bool:
    """Empty the next STEP of them, with their attempts; whether there were any."""
    of_batch = among(connection, events.c.batch_key, keys)
    of_events = deliveries.c.event_id.in_(select(events.c.id).where(of_batch))
    tried = select(attempts.c.delivery_id).where(attempts.c.delivery_id == deliveries.c.id)
    full = or_(
        deliveries.c.watch_metadata.isnot(None),
        deliveries.c.last_error.isnot(None),
        tried.where(or_(*(attempts.c[name].isnot(None) for name in ANSWERS))).exists(),
    )
    ids = (
        connection.execute(select(deliveries.c.id).where(of_events, full).limit(STEP))
        .scalars()
        .all()
    )
    if not ids:
        return False
    these = among(connection, deliveries.c.id, ids)
    connection.execute(update(deliveries).where(these).values(watch_metadata=None, last_error=None))
    theirs = among(connection, attempts.c.delivery_id, ids)
    connection.execute(update(attempts).where(theirs).values(dict.fromkeys(ANSWERS)))
    return True


def _let_results_go(connection: Connection, keys: Sequence[int]) -> None:
    """As if their time were over: a collector deletes the files next, and keeps no new one."""
    about = among(connection, results.c.batch_key, keys)
    unmerged = about & (results.c.state == ResultsState.WAITING)
    given_up = {"state": ResultsState.FAILED, "due_at": None, "reason": "Expunged."}
    no_lease = {"lease_token": None, "lease_until": None}
    connection.execute(update(results).where(unmerged).values(ended_at=0.0, **given_up, **no_lease))
    connection.execute(update(results).where(about).values(ended_at=0.0, inline=None))
    wake(connection, RESULTS)
