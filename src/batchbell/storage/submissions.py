"""Submissions: making them, and reading them back with their parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from msgspec import structs
from sqlalchemy import Connection, Row, Select, delete, select, update

from batchbell.core import submission as rules
from batchbell.core.errors import InvalidRequest, NotFound
from batchbell.core.line_numbers import Runs
from batchbell.core.model import Batch, BatchKind, Counts, Mint, Snapshot, Status
from batchbell.core.results import Results
from batchbell.core.submission import Part, PartState, Submission
from batchbell.storage import watches
from batchbell.storage.batch_lists import EVERY, NEWEST_FIRST, BatchFilter, find
from batchbell.storage.batches import get_batch, joined_batches, save, to_batch
from batchbell.storage.bulk import among, insert_missing
from batchbell.storage.engine import SUBMISSIONS, wake
from batchbell.storage.paging import Page, page_of
from batchbell.storage.results import of_keys
from batchbell.storage.schema import batches, parts, submissions
from batchbell.storage.watches import Registration

RUNS = msgspec.json.Decoder(Runs)


@dataclass(frozen=True, slots=True)
class NewPart:
    """Requests that lie in the results store under the name that belongs to this id."""

    id: str
    lines: int
    size: int
    """In bytes."""
    tokens: int
    """By estimate."""
    runs: Runs = ()
    """Which lines of the user's file they are."""


@dataclass(frozen=True, slots=True)
class Key:
    """What makes a call known when it is made again."""

    word: str
    """The caller's."""
    fingerprint: str
    """A digest of all that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What somebody asks for: have these requests answered, and tell of it."""

    id: str
    account_id: str
    endpoint: str
    """The provider's, such as `/v1/responses`."""
    model: str | None
    parts: Sequence[NewPart]
    retry_missing: int = 0
    retry_max_tokens: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    watch: Registration | None = None
    key: Key | None = None


def create(
    connection: Connection, project_id: str, asked: Asked, *, mint: Mint, now: float
) -> Submission:
    """Make a submission and its watch, and have a worker go on with its parts.

    Where another one came first with the same key, nothing is made, and that one is returned.
    Raises InvalidRequest for an endpoint of ours that the project has not, and as `of_key`.
    """
    batch_key = _make_batch(connection, project_id, asked, now=now)
    insert_missing(connection, submissions, [_row(project_id, asked, batch_key, now=now)])
    first = None if asked.key is None else of_key(connection, project_id, asked.key)
    if first is not None and first.id != asked.id:
        connection.execute(delete(batches).where(batches.c.key == batch_key))
        return first
    add_parts(connection, asked.id, list(enumerate(asked.parts, 1)), round=1, now=now)
    if asked.watch is not None:
        watches.register(connection, project_id, [asked.watch], mint=mint, now=now)
    wake(connection, SUBMISSIONS)
    return get_submission(connection, project_id, asked.id)


def of_key(connection: Connection, project_id: str, key: Key) -> Submission | None:
    """The project's submission that was made with this key; None where there is none.

    Raises InvalidRequest (409) where it was made of something else, or was expunged: what it was
    made of is not known any more.
    """
    mine = (submissions.c.project_id == project_id, submissions.c.idempotency_key == key.word)
    query = select(submissions.c.id, submissions.c.fingerprint).where(*mine)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.fingerprint != key.fingerprint:
        how = "of other requests or options" if row.fingerprint else "and expunged since"
        raise InvalidRequest(
            f"Submission {row.id} was made with this key, {how}. Nothing was made now: a new"
            " submission needs a new key.",
            param="Idempotency-Key",
            code="idempotency_key_reused",
            status=409,
        )
    found = read(connection, _joined().where(submissions.c.id == row.id))
    return found[0] if found else None


def _row(project_id: str, asked: Asked, batch_key: int, *, now: float) -> dict[str, Any]:
    return {
        "id": asked.id,
        "project_id": project_id,
        "batch_key": batch_key,
        "account_id": asked.account_id,
        "model": asked.model or "",
        "retry_missing": asked.retry_missing,
        "retry_max_tokens": asked.retry_max_tokens,
        "failures": 0,
        "due_at": now,
        "created_at": now,
        "idempotency_key": asked.key and asked.key.word,
        "fingerprint": asked.key and asked.key.fingerprint,
    }


def _make_batch(connection: Connection, project_id: str, asked: Asked, *, now: float) -> int:
    row = {
        **watches.new_batch(project_id, asked.account_id, asked.id, now=now),
        "kind": BatchKind.JOINED,
    }
    connection.execute(batches.insert().values(row))
    made = get_batch(connection, project_id, asked.id)
    seen = Snapshot(
        id=asked.id,
        provider_status=Status.VALIDATING,
        status=Status.VALIDATING,
        counts=Counts(total=sum(part.lines for part in asked.parts), completed=0, failed=0),
        endpoint=asked.endpoint,
        model=asked.model,
        completion_window="24h",
        timestamps={"created_at": int(now)},
        metadata=asked.metadata,
    )
    save(connection, [structs.replace(made, snapshot=seen)])
    return made.key


def add_parts(
    connection: Connection,
    submission_id: str,
    new: Sequence[tuple[int, NewPart]],
    *,
    round: int,
    now: float,
) -> None:
    """Parts, each with its position, that wait to be handed in."""
    rows = [
        {
            "id": part.id,
            "submission_id": submission_id,
            "position": position,
            "round": round,
            "state": PartState.WAITING.value,
            "lines": part.lines,
            "size": part.size,
            "tokens": part.tokens,
            "tries": 0,
            "due_at": now,
            "looked_through": False,
            "runs": msgspec.json.encode(part.runs).decode(),
        }
        for position, part in new
    ]
    insert_missing(connection, parts, rows)


def unknown_parts(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Those of the ids that no part has (any more)."""
    known = select(parts.c.id).where(among(connection, parts.c.id, ids))
    return set(ids).difference(connection.execute(known).scalars())


def get_submission(connection: Connection, project_id: str, submission_id: str) -> Submission:
    """One submission of the project. Raises NotFound."""
    query = _joined().where(
        submissions.c.project_id == project_id, submissions.c.id == submission_id
    )
    found = read(connection, query)
    if not found:
        raise NotFound("submission", submission_id)
    return found[0]


def list_submissions(
    connection: Connection,
    project_id: str,
    *,
    limit: int,
    after: str | None = None,
    filter: BatchFilter = EVERY,
) -> Page[Submission]:
    """The project's submissions, newest first. Raises NotFound for an unknown `after`.

    Each is a batch too, and is found as such: see `batch_lists.find`.
    """
    place = None if after is None else get_submission(connection, project_id, after).batch
    asked = replace(filter, kind=BatchKind.JOINED)
    found = find(connection, project_id, asked, after=place, limit=limit + 1)
    query = _joined().where(among(connection, batches.c.key, found.keys))
    listed = read(connection, query.order_by(*NEWEST_FIRST))
    return page_of(listed, limit, looked_to=found.looked_to)


def of_batch(connection: Connection, batch_key: int) -> Submission | None:
    """The submission that a batch is; None for any other batch."""
    found = read(connection, _joined().where(submissions.c.batch_key == batch_key))
    return found[0] if found else None


def standing(connection: Connection, found: Sequence[Batch]) -> list[Batch]:
    """The same batches, submissions that run as their parts are at this moment."""
    keys = [b.key for b in found if b.kind is BatchKind.JOINED and not b.status.ended]
    if not keys:
        return list(found)
    query = _joined().where(among(connection, submissions.c.batch_key, keys))
    now = {one.batch.key: rules.standing(one) for one in read(connection, query)}
    return [now.get(batch.key, batch) for batch in found]


def by_id(connection: Connection, submission_id: str) -> Submission:
    """A submission that is there."""
    return read(connection, _joined().where(submissions.c.id == submission_id))[0]


def cancel(
    connection: Connection, project_id: str, submission_id: str, *, now: float
) -> Submission:
    """Ask for an end: what was not handed in never will be. Raises NotFound.

    One that has ended stays as it is.
    """
    get_submission(connection, project_id, submission_id)
    running = (
        submissions.c.id == submission_id,
        submissions.c.due_at.isnot(None),
        submissions.c.cancelled_at.is_(None),
    )
    asked = {"cancelled_at": now, "due_at": now}
    if connection.execute(update(submissions).where(*running).values(**asked)).rowcount:
        wake(connection, SUBMISSIONS)
    return get_submission(connection, project_id, submission_id)


def _joined() -> Select[Any]:
    return (
        joined_batches()
        .join(submissions, submissions.c.batch_key == batches.c.key)
        .add_columns(
            submissions.c.retry_missing,
            submissions.c.retry_max_tokens,
            submissions.c.cancelled_at,
            submissions.c.reason.label("submission_reason"),
            submissions.c.failures,
            submissions.c.lease_token,
            submissions.c.created_at,
        )
    )


def read(connection: Connection, query: Select[Any]) -> list[Submission]:
    """Whatever the query over submissions finds, with all parts."""
    rows = connection.execute(query).all()
    found = _parts(connection, [row.id for row in rows])
    return [
        Submission(
            batch=to_batch(row),
            retry_missing=row.retry_missing,
            retry_max_tokens=row.retry_max_tokens,
            cancelled_at=row.cancelled_at,
            reason=row.submission_reason,
            failures=row.failures,
            created_at=row.created_at,
            parts=tuple(found.get(row.id, ())),
            lease_token=row.lease_token,
        )
        for row in rows
    ]


def _parts(connection: Connection, ids: Sequence[str]) -> dict[str, list[Part]]:
    if not ids:
        return {}
    query = select(parts).where(among(connection, parts.c.submission_id, ids))
    rows = connection.execute(query.order_by(parts.c.position, parts.c.round)).all()
    keys = [row.batch_key for row in rows if row.batch_key is not None]
    seen, merged = _batches(connection, keys), of_keys(connection, keys)
    found: dict[str, list[Part]] = defaultdict(list)
    for row in rows:
        part = _part(row, seen.get(row.batch_key), merged.get(row.batch_key))
        found[row.submission_id].append(part)
    return found


def _batches(connection: Connection, keys: Sequence[int]) -> dict[int, Batch]:
    if not keys:
        return {}
    query = joined_batches().where(among(connection, batches.c.key, keys))
    return {row.key: to_batch(row) for row in connection.execute(query)}


def _part(row: Row[Any], batch: Batch | None, merged: Results | None) -> Part:
    return Part(
        id=row.id,
        position=row.position,
        round=row.round,
        state=PartState(row.state),
        lines=row.lines,
        size=row.size,
        tokens=row.tokens,
        tries=row.tries,
        due_at=row.due_at,
        intent_at=row.intent_at,
        file_id=row.file_id,
        uploaded_at=row.uploaded_at,
        looked_through=row.looked_through,
        reason=row.reason,
        batch=batch,
        results=merged,
        asked_at=row.asked_at,
        ask_again_at=row.ask_again_at,
        looks=row.looks,
        note=row.note,
        runs=RUNS.decode(row.runs),
    )
