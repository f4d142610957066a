"""Parts of submissions: each step on their way, and what was learnt of the provider's limits."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Update, and_, delete, func, or_, select, update

from batchbell.core import governor
from batchbell.core import submission as rules
from batchbell.core.errors import LeaseLost
from batchbell.core.governor import Learnt
from batchbell.core.model import BatchKind, Mint, Snapshot
from batchbell.core.submission import Part, PartState, Submission
from batchbell.core.turns import Waiting
from batchbell.storage import accounts, submissions, watches
from batchbell.storage import batches as sightings
from batchbell.storage.accounts import FAR_FUTURE_SECONDS
from batchbell.storage.bulk import insert_missing
from batchbell.storage.engine import dialect_of, storable
from batchbell.storage.leases import Leased
from batchbell.storage.results import request
from batchbell.storage.schema import batches, capacities, parts
from batchbell.storage.schema import submissions as table
from batchbell.storage.submissions import NewPart

ROOM_SECONDS = 15.0
"""How soon a part that found no room looks again; the end of a batch of ours is heard at once."""
LOOK_SECONDS = 60.0
"""How soon a submission is looked at that waits for its batches, should a word be lost."""


_LEASED = Leased(table, open="due_at IS NOT NULL")


def waiting(connection: Connection) -> list[Waiting]:
    """The accounts with submissions to go on with. Costs as much as there are accounts."""
    return _LEASED.waiting(connection)


def claim_due(
    connection: Connection, account_id: str, *, now: float, lease_seconds: float, token: str
) -> Submission | None:
    """Take the account's submission that has waited longest; None when none is due."""
    free = and_(table.c.lease_until.is_(None), table.c.due_at <= now)
    due = (
        select(table.c.id)
        .where(table.c.account_id == account_id, table.c.due_at.isnot(None))
        .where(or_(free, table.c.lease_until <= now))
        .order_by(table.c.due_at)
        .limit(1)
        .with_for_update(skip_locked=True, of=table)
    )
    taken = {
        "due_at": now + FAR_FUTURE_SECONDS,
        "lease_until": now + lease_seconds,
        "lease_token": token,
    }
    claim = update(table).where(table.c.id == due.scalar_subquery()).values(**taken)
    id = connection.execute(claim.returning(table.c.id)).scalar_one_or_none()
    return None if id is None else submissions.by_id(connection, id)


def next_due(connection: Connection) -> float | None:
    """When a submission is next to be gone on with."""
    return _LEASED.next_due(connection)


def hold(connection: Connection, held: Submission, *, now: float, lease_seconds: float) -> None:
    """Lengthen the lease of a step that goes on. Raises LeaseLost."""
    _fenced(connection, held, _of(held).values(lease_until=now + lease_seconds))


def review(
    connection: Connection, held: Submission, *, rand: float, mint: Mint, now: float
) -> Submission:
    """Take in what became of the parts. Raises LeaseLost.

    A part for which there was no room waits again; the results of one that ended are wanted.
    """
    _prove(connection, held)
    found = submissions.by_id(connection, held.id)
    running = [part for part in found.parts if part.state is PartState.RUNNING]
    for part in running:
        if part.batch is None or not part.batch.status.ended:
            continue
        if found.cancelled_at is None and rules.is_refused(part):
            problems = part.batch.snapshot.problems if part.batch.snapshot else ()
            message = next(
                (p.message for p in problems if governor.says_no_room(p.code, p.message)), None
            )
            _refuse(connection, found, part, message=message, rand=rand, now=now)
            continue
        _change(connection, part, state=PartState.ENDED)
        if rules.has_answers(part.batch):
            request(connection, [part.batch], mint=mint, now=now)
        else:
            _change(connection, part, looked_through=True)
    return submissions.by_id(connection, held.id)


def replace_part(
    connection: Connection, held: Submission, part: Part, new: Sequence[NewPart], *, now: float
) -> Submission:
    """Have smaller parts stand where one that waits stood. Raises LeaseLost."""
    _prove(connection, held)
    behind = (parts.c.submission_id == held.id, parts.c.position > part.position)
    moved = parts.c.position + len(new) - 1
    connection.execute(update(parts).where(*behind).values(position=moved))
    connection.execute(delete(parts).where(parts.c.id == part.id))
    placed = list(enumerate(new, part.position))
    submissions.add_parts(connection, held.id, placed, round=part.round, now=now)
    return submissions.by_id(connection, held.id)


def intend(connection: Connection, held: Submission, part: Part, *, now: float) -> Part | None:
    """Note that the part is about to be handed in; None where there is no room for it.

    Raises LeaseLost.
    """
    _prove(connection, held)
    account_id, model = _room_of(held)
    known = locked(connection, account_id, model)
    tokens = governor.estimate(known, part.size)
    enqueued = enqueued_tokens(connection, account_id, model)
    if not governor.has_room(known, enqueued=enqueued, tokens=tokens, now=now):
        return None
    _change(
        connection,
        part,
        state=PartState.SUBMITTING,
        tokens=tokens,
        tries=part.tries + 1,
        intent_at=now,
        asked_at=None,
    )
    return _again(connection, held, part)


def uploaded(
    connection: Connection, held: Submission, part: Part, *, file_id: str, at: float
) -> Part:
    """Note the provider's file. Raises LeaseLost."""
    _prove(connection, held)
    _change(connection, part, file_id=storable(file_id), uploaded_at=at)
    return _again(connection, held, part)


def asking(
    connection: Connection, held: Submission, part: Part, *, now: float, ask_again_at: float
) -> Part:
    """Note that the provider is about to be asked: from here on the batch may be there.

    Raises LeaseLost.
    """
    _prove(connection, held)
    _change(connection, part, asked_at=now, ask_again_at=ask_again_at, looks=0)
    return _again(connection, held, part)


def answered(
    connection: Connection,
    held: Submission,
    part: Part,
    *,
    ask_again_at: float | None,
    reason: str,
    forget_file: bool = False,
) -> None:
    """Note a failed call; without `ask_again_at` nothing was made by it. Raises LeaseLost."""
    _prove(connection, held)
    kept: dict[str, object] = {"file_id": None, "uploaded_at": None} if forget_file else {}
    if ask_again_at is None:
        kept["asked_at"] = None
    else:
        kept["ask_again_at"] = ask_again_at
    _change(connection, part, reason=storable(reason), **kept)


def looked(connection: Connection, held: Submission, part: Part) -> None:
    """Note a look at the list that showed nothing of the part. Raises LeaseLost."""
    _prove(connection, held)
    _change(connection, part, looks=parts.c.looks + 1)


def note(connection: Connection, held: Submission, part: Part, *, note: str) -> None:
    """Keep what was done otherwise than asked. Raises LeaseLost."""
    _prove(connection, held)
    _change(connection, part, note=storable(note))


def taken(
    connection: Connection, account_id: str, ids: Sequence[str], *, asked_at: float
) -> set[str]:
    """Those of the account's batches that a call has not made: known before it, or as a part."""
    query = select(batches.c.id).where(
        batches.c.account_id == account_id,
        batches.c.id.in_([storable(id) for id in ids]),
        or_(batches.c.kind == BatchKind.PART, batches.c.registered_at < asked_at),
    )
    return set(connection.execute(query).scalars())


def id_of(connection: Connection, batch_key: int) -> str | None:
    """The id of the part that runs as a batch; None where that is no part."""
    query = select(parts.c.id).where(parts.c.batch_key == batch_key).limit(1)
    found: str | None = connection.execute(query).scalar_one_or_none()
    return found


def handed_in(
    connection: Connection,
    held: Submission,
    part: Part,
    seen: Snapshot,
    *,
    mint: Mint,
    now: float,
) -> None:
    """Note the batch that the part became, and have it watched. Raises LeaseLost.

    Rows are locked in the order of a sweep's write: account, batch, submissions.
    """
    account_id = held.batch.account_id
    accounts.lock(connection, account_id)
    row = watches.new_batch(held.batch.project_id, account_id, seen.id, now=now)
    insert_missing(connection, batches, [{**row, "kind": BatchKind.PART}])
    this = (batches.c.account_id == account_id, batches.c.id == seen.id)
    connection.execute(update(batches).where(*this).values(kind=BatchKind.PART))
    key = connection.execute(select(batches.c.key).where(*this)).scalar_one()
    accounts.make_due(connection, [account_id], now=now)
    sightings.observe(connection, account_id=account_id, sightings=[seen], mint=mint, now=now)
    _prove(connection, held)
    _change(connection, part, state=PartState.RUNNING, batch_key=key, reason=None, asked_at=None)


def refuse(
    connection: Connection, held: Submission, part: Part, *, message: str, rand: float, now: float
) -> None:
    """Have the part wait, for which the provider had no room. Raises LeaseLost."""
    _prove(connection, held)
    _refuse(connection, held, part, message=message, rand=rand, now=now)


def reject(connection: Connection, held: Submission, part: Part, *, reason: str | None) -> None:
    """Give a part up that never became a batch. Raises LeaseLost."""
    _prove(connection, held)
    words = None if reason is None else storable(reason)
    _change(
        connection,
        part,
        state=PartState.ENDED,
        looked_through=True,
        reason=words,
        asked_at=None,
    )


def look_through(
    connection: Connection, held: Submission, part: Part, again: NewPart | None, *, now: float
) -> None:
    """Note that the results of a part were searched for what is to be tried again.

    What its requests used is learnt at the same time. Raises LeaseLost.
    """
    _prove(connection, held)
    account_id, model = _room_of(held)
    size, tokens = rules.input_used(part)
    known = locked(connection, account_id, model)
    known = governor.used(known, size=size, tokens=tokens)
    known = governor.passed(known, enqueued=part.tokens)
    keep(connection, account_id, model, known)
    _change(connection, part, looked_through=True)
    if again is not None:
        placed = [(part.position, again)]
        submissions.add_parts(connection, held.id, placed, round=part.round + 1, now=now)


def finish(connection: Connection, held: Submission, *, mint: Mint, now: float) -> Submission:
    """End a step: tell what became of the submission, and give it back. Raises LeaseLost."""
    _prove(connection, held)
    found = submissions.by_id(connection, held.id)
    seen = rules.sighting(found, now=now)
    account_id = found.batch.account_id
    sightings.observe(connection, account_id=account_id, sightings=[seen], mint=mint, now=now)
    after = submissions.by_id(connection, held.id)
    if after.batch.status.ended:
        request(connection, [after.batch], mint=mint, now=now)
    _give_back(connection, held, next_at=_next_at(after, now), reason=None, failures=0)
    return after


def put_off(
    connection: Connection,
    held: Submission,
    *,
    reason: str,
    next_at: float,
    mint: Mint,
    now: float,
) -> None:
    """End a step that an error has ended; what was reached until then shows. Raises LeaseLost."""
    _prove(connection, held)
    found = submissions.by_id(connection, held.id)
    seen = rules.sighting(found, now=now)
    if seen.status is not None and not seen.status.ended:
        account_id = found.batch.account_id
        sightings.observe(connection, account_id=account_id, sightings=[seen], mint=mint, now=now)
    _give_back(
        connection, held, next_at=next_at, reason=storable(reason), failures=held.failures + 1
    )


def _next_at(found: Submission, now: float) -> float | None:
    if found.batch.status.ended:
        return None
    if any(part.unlooked or part.state is PartState.SUBMITTING for part in found.parts):
        return now
    waiting = [part.due_at for part in found.parts if part.state is PartState.WAITING]
    if not waiting:
        return now + LOOK_SECONDS
    return max(now + ROOM_SECONDS, min(waiting))


def _give_back(
    connection: Connection,
    held: Submission,
    *,
    next_at: float | None,
    reason: str | None,
    failures: int,
) -> None:
    """Whoever had it looked at meanwhile has set `due_at`: the earlier time wins."""
    earlier = func.min if dialect_of(connection) == "sqlite" else func.least
    free = _of(held).values(
        due_at=None if next_at is None else earlier(table.c.due_at, next_at),
        lease_until=None,
        lease_token=None,
        reason=reason,
        failures=failures,
    )
    _fenced(connection, held, free)


def _refuse(
    connection: Connection,
    held: Submission,
    part: Part,
    *,
    message: str | None,
    rand: float,
    now: float,
) -> None:
    account_id, model = _room_of(held)
    known = locked(connection, account_id, model)
    enqueued = enqueued_tokens(connection, account_id, model)
    stated = governor.stated_limit(message)
    known = governor.refused(known, enqueued=enqueued, stated=stated, now=now)
    keep(connection, account_id, model, known)
    wait = rules.refused_wait(part.tries, rand=rand)
    _change(
        connection,
        part,
        state=PartState.WAITING,
        batch_key=None,
        asked_at=None,
        due_at=now + wait,
        reason=None if message is None else storable(message),
    )


def _room_of(held: Submission) -> tuple[str, str]:
    """Whose room it is that the parts take: an account's, for a model."""
    return held.batch.account_id, held.snapshot.model or ""


def _change(connection: Connection, part: Part, **values: object) -> None:
    connection.execute(update(parts).where(parts.c.id == part.id).values(**values))


def _again(connection: Connection, held: Submission, part: Part) -> Part:
    found = submissions.by_id(connection, held.id)
    return next(one for one in found.parts if one.id == part.id)


def _prove(connection: Connection, held: Submission) -> None:
    """That the lease is ours still; nobody else takes it until the transaction ends."""
    _fenced(connection, held, _of(held).values(failures=table.c.failures))


def _of(held: Submission) -> Update:
    """A change of what is held, and of nothing else."""
    return update(table).where(table.c.id == held.id, table.c.lease_token == held.lease_token)


def _fenced(connection: Connection, held: Submission, change: Update) -> None:
    if connection.execute(change).rowcount != 1:
        raise LeaseLost(f"submission {held.id}")


def learnt(connection: Connection, account_id: str, model: str) -> Learnt:
    """What is known; nothing, at first."""
    query = select(capacities).where(
        capacities.c.account_id == account_id, capacities.c.model == model
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return Learnt()
    return Learnt(
        bytes=row.bytes, tokens=row.tokens, cap=row.cap, cap_at=row.cap_at, stated=row.stated
    )


def locked(connection: Connection, account_id: str, model: str) -> Learnt:
    """The same; nobody else changes it, or takes room, until the transaction ends."""
    row = {
        "account_id": account_id,
        "model": model,
        "bytes": 0.0,
        "tokens": 0.0,
        "cap_at": 0.0,
        "stated": False,
    }
    insert_missing(connection, capacities, [row])
    this = select(capacities.c.model).where(
        capacities.c.account_id == account_id, capacities.c.model == model
    )
    connection.execute(this.with_for_update())
    return learnt(connection, account_id, model)


def keep(connection: Connection, account_id: str, model: str, known: Learnt) -> None:
    """Write what was learnt; the row must be locked."""
    this = (capacities.c.account_id == account_id, capacities.c.model == model)
    connection.execute(
        update(capacities)
        .where(*this)
        .values(
            bytes=known.bytes,
            tokens=known.tokens,
            cap=known.cap,
            cap_at=known.cap_at,
            stated=known.stated,
        )
    )


def enqueued_tokens(connection: Connection, account_id: str, model: str) -> int:
    """Tokens, by estimate, of all parts that the provider has or is being handed."""
    query = (
        select(func.coalesce(func.sum(parts.c.tokens), 0))
        .join(table, table.c.id == parts.c.submission_id)
        .join(batches, batches.c.key == table.c.batch_key)
        .where(
            batches.c.account_id == account_id,
            table.c.model == model,
            table.c.due_at.isnot(None),
            parts.c.state.in_([PartState.SUBMITTING, PartState.RUNNING]),
        )
    )
    return int(connection.execute(query).scalar_one())
