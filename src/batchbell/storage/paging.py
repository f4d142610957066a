"""Pages of a list, in OpenAI's way: `after` an id, and whether there are more.

A list that may be asked for by several columns is read as several walks, each along one stretch of
one index, of which every one stops at the length of the page. So a page costs as much as there are
walks, whatever the table holds.

Where no index holds together what is asked for, a walk passes over what it does not want, and there
may be much of that. It looks at so many entries for one page, and no further: the page may then be
short, or empty, and says that there is more, behind the entry that was looked at last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    TextClause,
    literal,
    select,
    tuple_,
    union_all,
)

from batchbell.core.ids import first_id

Said = ColumnElement[bool] | TextClause
"""Something that is asked of a row."""


class Named(Protocol):
    """Whatever a list holds."""

    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=Named)


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    items: Sequence[Item]
    has_more: bool
    last_id: str | None
    """Where the next page goes on: behind the last item, or where this one stopped to look."""


def page_of(found: Sequence[Item], limit: int, *, looked_to: str | None = None) -> Page[Item]:
    """A page from up to `limit + 1` items that were read.

    `looked_to` is the id of the entry at which a walk has stopped to look for more.
    """
    items, is_full = found[:limit], len(found) > limit
    last_id = items[-1].id if items else None
    return Page(
        items, is_full or looked_to is not None, last_id if is_full else looked_to or last_id
    )


@dataclass(frozen=True, slots=True)
class Walk:
    """A stretch of an index in the order of a list, and what its entries are chosen by.

    What is `asked` the index does not hold together: the walk passes over all that is otherwise.
    """

    stretch: Select[Any]
    asked: Sequence[Said] = ()


def first_of(
    connection: Connection,
    walks: Sequence[Walk],
    order: Sequence[str],
    limit: int,
    *,
    looked_at_most: int = 0,
) -> tuple[Sequence[Row[Any]], Row[Any] | None]:
    """The first rows of several walks together, by these of their columns, the greatest first.

    Where walks may pass over entries, say how many of each are looked at: the second is then the
    entry at which all have stopped. It is counted along the index, faster than entries are looked
    at.
    """
    if not walks:
        return [], None
    end = None
    if passing := [walk.stretch for walk in walks if walk.asked]:
        ends = [_ordered(one, order, 1).offset(looked_at_most - 1) for one in passing]
        end = connection.execute(_together(ends, order, 1)).first()
    each = [_ordered(_to(walk, order, end), order, limit) for walk in walks]
    return connection.execute(_together(each, order, limit)).all(), end


def _to(walk: Walk, order: Sequence[str], end: Row[Any] | None) -> Select[Any]:
    found = walk.stretch.where(*walk.asked)
    if end is None:
        return found
    columns = (walk.stretch.selected_columns[name] for name in order)
    return found.where(tuple_(*columns) >= tuple_(*map(literal, end)))


def _together(each: Sequence[Select[Any]], order: Sequence[str], limit: int) -> Select[Any]:
    if len(each) == 1:
        return each[0]
    together = union_all(*(select(one.subquery()) for one in each)).subquery()
    return _ordered(select(together), order, limit)


def _ordered(walk: Select[Any], order: Sequence[str], limit: int) -> Select[Any]:
    return walk.order_by(*(walk.selected_columns[name].desc() for name in order)).limit(limit)


def apart(query: Select[Any]) -> Select[Any]:
    """The same rows, found before anybody asks for an order.

    The offset does it: a database that was asked for the first rows of few might rather walk all
    that there are in order.
    """
    found = query.offset(0).subquery()
    return select(*found.c)


def within(
    time: ColumnElement[float], since: float | None, until: float | None
) -> Iterator[ColumnElement[bool]]:
    """That a time lies from the one and before the other; None for an open end."""
    if since is not None:
        yield time >= since
    if until is not None:
        yield time < until


def made_within(
    id: ColumnElement[str], prefix: str, since: float | None, until: float | None
) -> Iterator[ColumnElement[bool]]:
    """The same for when a row was made, by its id of ours: a stretch of any index by id."""
    if since is not None:
        yield id >= first_id(prefix, at=since)
    if until is not None:
        yield id < first_id(prefix, at=until)
