"""Lists of batches: which there are by whatever is asked, page by page, from an index alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    and_,
    func,
    literal,
    literal_column,
    select,
    tuple_,
)

from batchbell.core.errors import AmbiguousBatch, InvalidRequest, NotFound
from batchbell.core.model import Batch, BatchKind, BatchOutcome, Status
from batchbell.core.nearest import hint
from batchbell.storage.batches import joined_batches, marks, to_batch
from batchbell.storage.bulk import among
from batchbell.storage.engine import dialect_of
from batchbell.storage.paging import Page, Walk, apart, first_of, page_of, within
from batchbell.storage.projects import has_batch
from batchbell.storage.schema import BATCHES_FOUND, accounts, batches


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFilter:
    """Which batches a list holds: those that all of it is true of. None asks for nothing.

    Times are seconds since the epoch, from the one and before the other.
    """

    begins: str | None = None
    """How the id begins; a whole id does, too."""
    status: Status | None = None
    outcome: BatchOutcome | None = None
    provider: str | None = None
    account: str | None = None
    """By name, that of an account that was removed, too."""
    model: str | None = None
    """As the batch shows it: null until its provider says it, or its merged results do."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Pairs that are all in the batch's own metadata."""
    since: float | None = None
    """When it was registered."""
    until: float | None = None
    ended_since: float | None = None
    ended_until: float | None = None
    kind: Literal[BatchKind.JOINED] | None = None
    """Submissions alone."""


EVERY = BatchFilter()


def list_batches(
    connection: Connection,
    project_id: str,
    *,
    limit: int,
    after: str | None = None,
    filter: BatchFilter = EVERY,
) -> Page[Batch]:
    """The project's batches, the last registered first.

    Raises NotFound for an unknown `after`, and AmbiguousBatch for an id that several of the
    accounts have that are asked for: where a page ends with such a one, its `last_id` says which.
    """
    place = None if after is None else _place(connection, project_id, after, filter.account)
    found = find(connection, project_id, filter, after=place, limit=limit + 1)
    rows = connection.execute(
        joined_batches().where(among(connection, batches.c.key, found.keys)).order_by(*NEWEST_FIRST)
    )
    listed = [to_batch(row) for row in rows]
    page = page_of(listed, limit, looked_to=found.looked_to)
    if len(listed) <= limit:
        return page
    return replace(page, last_id=_place_id(connection, page.items[-1].key))


def _place_id(connection: Connection, key: int) -> str:
    """What names a batch in `after`: its id, and its account where several have that id."""
    beside, other = accounts.alias("beside"), batches.alias("other")
    query = (
        select(batches.c.id, accounts.c.name, func.count(other.c.key))
        .join(accounts, accounts.c.id == batches.c.account_id)
        .join(beside, beside.c.project_id == accounts.c.project_id)
        .join(other, and_(other.c.account_id == beside.c.id, other.c.id == batches.c.id))
        .where(batches.c.key == key)
        .group_by(batches.c.id, accounts.c.name)
    )
    id, account, number = connection.execute(query).one()
    return id if number == 1 else f"{id}@{account}"


def _place(connection: Connection, project_id: str, after: str, account: str | None) -> Batch:
    """The batch that `_place_id` named. Raises NotFound, AmbiguousBatch."""
    id, _, name = after.rpartition("@")
    for batch_id, of in ((after, account), (id, name)):
        these = (has_batch(project_id), batches.c.id == batch_id)
        rows = connection.execute(joined_batches().where(*these)).all()
        found = rows if len(rows) < 2 else [row for row in rows if row.account == of]
        if len(found) == 1:
            return to_batch(found[0])
        if rows:
            raise AmbiguousBatch(after, [row.account for row in rows])
    raise NotFound("batch", after)


NEWEST_FIRST = (batches.c.registered_at.desc(), batches.c.key.desc())
ORDER = ("registered_at", "key")
LOOKED_AT_MOST = 50_000
"""Entries of one status that a page is looked for among."""
FEW = 1_000
"""So many batches whose ids begin alike are found by their ids, however old they are."""
LAST_CHARACTER = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Found:
    """What a list holds on one page."""

    keys: Sequence[int]
    looked_to: str | None
    """The batch at which the search has stopped, where there are more behind it."""


def find(
    connection: Connection,
    project_id: str,
    filter: BatchFilter,
    *,
    after: Batch | None,
    limit: int,
) -> Found:
    """The first batches of a list behind another one, from an index alone.

    `ix_batches_found` serves every filter, and `ix_batches_joined` those of submissions. Both are
    in order for each status, so a list by status, time or neither costs a page. Whatever else is
    asked is in their entries, of which LOOKED_AT_MOST are looked at: some 50 ms. A whole id, or
    nearly one, is found in the index of each account's ids, and nothing is passed over.
    """
    few = None if filter.begins is None else _few(connection, project_id, filter.begins)
    of = batches if few is None else few
    asked = [*_asked(connection, of, filter), *_of_accounts(connection, of, project_id, filter)]
    walks = [
        Walk(stretch, asked) if few is None else Walk(stretch.where(*asked))
        for stretch in _stretches(of, project_id, filter, after)
    ]
    rows, end = first_of(connection, walks, ORDER, limit, looked_at_most=LOOKED_AT_MOST)
    looked_to = None if end is None else _place_id(connection, end.key)
    return Found([row.key for row in rows], looked_to)


def _few(connection: Connection, project_id: str, begins: str) -> FromClause | None:
    """The project's batches whose ids begin so; None where they are more than FEW."""
    id = batches.c.id
    if dialect_of(connection) == "sqlite":
        range = (id >= begins, id < begins + LAST_CHARACTER)
    else:
        range = (id.op("~>=~")(begins), id.op("~<~")(begins + LAST_CHARACTER))
    alike = (has_batch(project_id), *range)
    if connection.execute(select(batches.c.key).where(*alike).offset(FEW).limit(1)).first():
        return None
    columns = (batches.c[name] for name in BATCHES_FOUND)
    return apart(select(*columns).where(*alike)).subquery("few")


def _stretches(
    of: FromClause, project_id: str, filter: BatchFilter, after: Batch | None
) -> Iterator[Select[Any]]:
    """For each status what is asked of its entries by their order."""
    b = of.c
    wanted = [b.project_id == project_id]
    wanted += within(b.registered_at, filter.since, filter.until)
    if filter.kind is BatchKind.JOINED:
        wanted.append(b.kind == literal_column("'joined'"))  # spelled out: it chooses the index
    if after is not None:
        place = tuple_(literal(after.registered_at), literal(after.key))
        wanted.append(tuple_(b.registered_at, b.key) < place)
    for status in [filter.status] if filter.status else Status:
        yield select(b.registered_at, b.key).where(b.status == status, *wanted)


def _asked(
    connection: Connection, of: FromClause, filter: BatchFilter
) -> Iterator[ColumnElement[bool]]:
    """What else the columns of a batch say by themselves."""
    b = of.c
    if filter.begins is not None:
        yield func.substr(b.id, 1, len(filter.begins)) == filter.begins
    if filter.outcome is not None:
        yield b.outcome == filter.outcome
    if filter.model is not None:
        yield b.model == filter.model
    place = func.instr if dialect_of(connection) == "sqlite" else func.strpos
    for mark in marks(filter.metadata):
        yield place(b.marks, mark) > 0
    # A sum, so that nobody takes `ix_batches_ended`, which has the batches of every project.
    yield from within(b.ended_at + 0.0, filter.ended_since, filter.ended_until)


def _of_accounts(
    connection: Connection, of: FromClause, project_id: str, filter: BatchFilter
) -> Iterator[ColumnElement[bool]]:
    """By the ids of those that are asked for: there are few accounts. Raises InvalidRequest."""
    if filter.account is None and filter.provider is None:
        return
    query = select(accounts.c.id, accounts.c.name, accounts.c.provider)
    known = connection.execute(query.where(accounts.c.project_id == project_id)).all()
    if filter.account not in (None, *(row.name for row in known)):
        raise InvalidRequest(
            f"There is no account {filter.account!r}."
            f" {hint(str(filter.account), [row.name for row in known])}",
            param="account",
            code="unknown_account",
        )
    ids = [
        row.id
        for row in known
        if filter.account in (None, row.name) and filter.provider in (None, row.provider)
    ]
    yield among(connection, cast("Column[Any]", of.c.account_id), ids)
