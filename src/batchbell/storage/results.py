"""Results of batches: requested with an event, found again, and asked for again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import itemgetter
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import (
    Connection,
    Row,
    and_,
    case,
    delete,
    or_,
    select,
    update,
)

from batchbell.core import results as rules
from batchbell.core.attachment import Attachment, ResultsState
from batchbell.core.errors import NotFound
from batchbell.core.model import Batch, Mint
from batchbell.core.results import Results, Tally
from batchbell.storage.bulk import among, insert_missing
from batchbell.storage.engine import RESULTS, wake
from batchbell.storage.projects import has_batch
from batchbell.storage.schema import batches, results

TALLY = msgspec.json.Decoder(Tally)


class Requested(Struct, frozen=True):
    """Results that somebody wants, and whether they have to be waited for."""

    id: str
    waits: bool


def request(
    connection: Connection,
    ended: Sequence[Batch],
    *,
    behind: Collection[int] = (),
    mint: Mint,
    now: float,
) -> dict[int, Requested]:
    """Have the results of these batches merged, unless that was asked for already.

    Nobody waits for those `behind`, by the batch's key: see `core.results.BEHIND_SECONDS`. Those
    that were given up are tried again, also after they were expunged. Returns them by the batch's
    key.
    """
    if not ended:
        return {}
    ids = {batch.key: mint("res") for batch in ended}
    rows = [
        {
            "id": ids[batch.key],
            "project_id": batch.project_id,
            "batch_key": batch.key,
            "generation": batch.generation,
            "account_id": batch.account_id,
            "state": ResultsState.WAITING.value,
            "secret": mint("sec"),
            "due_at": now if batch.key in behind else _awaited(now),
            "tries": 0,
            "created_at": now,
        }
        for batch in ended
    ]
    made = insert_missing(connection, results, sorted(rows, key=itemgetter("batch_key")))
    wake(connection, RESULTS)
    if made == len(rows):
        return {key: Requested(id, waits=True) for key, id in ids.items()}
    found = _newest(connection, ended)
    given_up = [row.id for row in found if row.state == ResultsState.FAILED]
    if given_up and ask_again(connection, given_up, now=now, expunged=True):
        found = _newest(connection, ended)
    return {row.batch_key: Requested(row.id, row.state == ResultsState.WAITING) for row in found}


def _awaited(now: float) -> float:
    """Due for so long that it stands behind nothing."""
    return now - rules.BEHIND_SECONDS


def _newest(connection: Connection, ended: Sequence[Batch]) -> list[Any]:
    """In the order of ids: of those of one batch the newest comes last."""
    query = select(results.c.batch_key, results.c.id, results.c.state).where(
        among(connection, results.c.batch_key, [batch.key for batch in ended])
    )
    return [*connection.execute(query.order_by(results.c.id))]


def ask_again(
    connection: Connection,
    ids: Sequence[str],
    *,
    now: float,
    missing: bool = False,
    expunged: bool = False,
) -> bool:
    """Have results tried again: those that were given up from the first try on, those that wait
    for a later try or stand behind webhooks now. Whether any of them are.

    With `missing` those too that were merged, and are gone from where they were kept; with
    `expunged` those that were removed on request. Each set once in AGAIN_SECONDS at most.
    """
    chosen = among(connection, results.c.id, ids)
    rested = or_(
        results.c.asked_at.is_(None),
        results.c.asked_at <= now - rules.AGAIN_SECONDS,
        results.c.asked_at > now,
    )
    ended = [ResultsState.FAILED, ResultsState.READY] if missing else [ResultsState.FAILED]
    kept = results.c.ended_at > 0
    begun = (
        update(results)
        .where(chosen, rested, results.c.state.in_(ended))
        .where(or_(kept, results.c.ended_at == 0) if expunged else kept)
        .values(tries=0, ended_at=None, lines=None, size=None, tally=None, inline=None)
        .values(state=ResultsState.WAITING, due_at=_awaited(now), asked_at=now)
        .values(created_at=case((results.c.ended_at == 0, now), else_=results.c.created_at))
    )
    untried = results.c.tries == 0
    later = (
        update(results)
        .where(chosen, rested, results.c.state == ResultsState.WAITING)
        .where(or_(results.c.due_at > now, and_(untried, results.c.due_at > _awaited(now))))
        .where(results.c.lease_token.is_(None))
        .values(due_at=_awaited(now), asked_at=now)
    )
    changed = connection.execute(begun).rowcount + connection.execute(later).rowcount
    if changed:
        wake(connection, RESULTS)
    return changed > 0


def want_anew(
    connection: Connection, found: Sequence[tuple[Batch, str | None]], *, mint: Mint, now: float
) -> None:
    """Have batches fetched again whose merged results cannot be used, each with their id if any."""
    request(connection, [batch for batch, _ in found], mint=mint, now=now)
    ids = [id for _, id in found if id is not None]
    if ids:
        ask_again(connection, ids, now=now, missing=True, expunged=True)


def attachments(connection: Connection, ids: Collection[str]) -> dict[str, Attachment]:
    """What may travel with webhooks, by the id of the results, but for its lines."""
    if not ids:
        return {}
    query = select(
        results.c.id,
        results.c.secret,
        results.c.state,
        results.c.lines,
        results.c.size,
        results.c.inline.isnot(None).label("has_lines"),
        results.c.tally,
    ).where(among(connection, results.c.id, sorted(ids)))
    return {
        row.id: Attachment(
            id=row.id,
            secret=row.secret,
            state=ResultsState(row.state),
            lines=row.lines,
            size=row.size,
            has_lines=bool(row.has_lines),
            **_found(row.tally),
        )
        for row in connection.execute(query).all()
    }


def with_lines(connection: Connection, id: str) -> Attachment | None:
    """One of these with its lines; None where it is gone."""
    found = attachments(connection, {id}).get(id)
    if found is None or not found.has_lines:
        return found
    lines = select(results.c.inline).where(results.c.id == id)
    return replace(found, inline=connection.execute(lines).scalar_one())


def _found(tally: str | None) -> dict[str, Any]:
    """What merged files hold."""
    if tally is None:
        return {}
    read = TALLY.decode(tally)
    return {"outcome": rules.outcome(read).value, "counts": rules.counts_of(read)}


def of_batch(connection: Connection, project_id: str, batch_id: str) -> Results:
    """The results of a batch of the project, the newest. Raises NotFound."""
    query = (
        select(batches.c.key)
        .where(has_batch(project_id), batches.c.id == batch_id)
        .order_by(batches.c.key)
        .limit(1)
    )
    key = connection.execute(query).scalar_one_or_none()
    if key is None:
        raise NotFound("batch", batch_id)
    found = of_key(connection, key)
    if found is None:
        raise NotFound("results of batch", batch_id)
    return found


def of_key(connection: Connection, batch_key: int) -> Results | None:
    """The results of a batch by its key, the newest; None where nobody wanted them."""
    query = select(results).where(results.c.batch_key == batch_key)
    row = connection.execute(query.order_by(results.c.id.desc()).limit(1)).one_or_none()
    return None if row is None else to_results(row)


def every_of_key(connection: Connection, batch_key: int) -> list[Results]:
    """All results of a batch, the oldest first: one for each of its lives."""
    query = select(results).where(results.c.batch_key == batch_key)
    return [to_results(row) for row in connection.execute(query.order_by(results.c.id))]


def of_keys(connection: Connection, keys: Sequence[int]) -> dict[int, Results]:
    """The newest results of each batch that has any, by its key."""
    if not keys:
        return {}
    query = select(results).where(among(connection, results.c.batch_key, keys))
    rows = connection.execute(query.order_by(results.c.id))
    return {row.batch_key: to_results(row) for row in rows}


def by_id(connection: Connection, results_id: str) -> Results | None:
    """For whoever brings a link; None where there are none (any more)."""
    row = connection.execute(select(results).where(results.c.id == results_id)).one_or_none()
    return None if row is None else to_results(row)


def old(connection: Connection, *, before: float, limit: int) -> list[Results]:
    """Results that were merged, or given up, before a time; the oldest first."""
    query = select(results).where(results.c.ended_at.isnot(None), results.c.ended_at < before)
    rows = connection.execute(query.order_by(results.c.ended_at).limit(limit))
    return [to_results(row) for row in rows]


def forget(connection: Connection, ids: Sequence[str], *, before: float) -> None:
    """Forget results whose files are gone; links to them answer that they are gone.

    Those that were asked for again meanwhile stay.
    """
    over = results.c.ended_at < before
    connection.execute(delete(results).where(among(connection, results.c.id, ids), over))


def to_results(row: Row[Any]) -> Results:
    """From a row of `results`."""
    return Results(
        id=row.id,
        project_id=row.project_id,
        batch_key=row.batch_key,
        state=ResultsState(row.state),
        secret=row.secret,
        tries=row.tries,
        reason=row.reason,
        tally=None if row.tally is None else TALLY.decode(row.tally),
        created_at=row.created_at,
        ended_at=row.ended_at,
        asked_at=row.asked_at,
    )
