"""Statements that carry many rows, whatever their number.

On PostgreSQL every column travels as one array: one round trip, and one text to prepare. On SQLite
a hundred rows are one step, with a parameter for each value: its thread gives up the interpreter
with every step, and may wait long to have it back. One JSON text for all rows, which SQLite takes
apart, would be one step as well, but takes it twice as long.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import chain
from operator import itemgetter
from typing import Any, cast

import msgspec
from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Connection,
    CursorResult,
    Dialect,
    Table,
    TextClause,
    TypeDecorator,
    any_,
    bindparam,
    func,
    literal,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY

from batchbell.storage.engine import dialect_of
from batchbell.storage.postgresql import set_locally, setting

Rows = Sequence[Mapping[str, Any]]
"""All with the same keys of columns; what a row leaves out is NULL."""

_POSTGRESQL = postgresql.dialect()  # type: ignore[no-untyped-call]

STEPS = (100, 50, 20, 10, 5, 2, 1)
"""How many rows a step of SQLite may carry. Few sizes, so that their statements stay prepared: each
holds what it carried last."""


def among(
    connection: Connection, column: Column[Any], values: Collection[Any]
) -> ColumnElement[bool]:
    """That the column has one of the values: one parameter, however many there are."""
    if dialect_of(connection) == "sqlite":
        given: BindParameter[str] = bindparam("listed", listed(connection, values), unique=True)
        return cast(
            "ColumnElement[bool]",
            _listed_sqlite(column.table.name, column.name, "listed").bindparams(given),
        )
    return column == any_(literal(list(values), ARRAY(column.type)))


def among_listed(dialect: str, column: Column[Any], name: str) -> ColumnElement[bool]:
    """The same for a statement that is made once: `name` is the parameter, `listed` its value."""
    if dialect == "sqlite":
        return cast("ColumnElement[bool]", _listed_sqlite(column.table.name, column.name, name))
    return column == any_(bindparam(name, type_=ARRAY(column.type)))


def listed(connection: Connection, values: Collection[Any]) -> Any:
    """Several values as one parameter."""
    return json.dumps(list(values)) if dialect_of(connection) == "sqlite" else list(values)


@cache
def _listed_sqlite(table: str, column: str, name: str) -> TextClause:
    """As text: SQLAlchemy takes half a millisecond to put together what `json_each` gives."""
    return text(f'{table}."{column}" IN (SELECT value FROM json_each(:{name}))')  # noqa: S608 - our own names


def among_pairs(
    connection: Connection,
    columns: tuple[Column[Any], Column[Any]],
    values: Collection[tuple[Any, Any]],
) -> ColumnElement[bool]:
    """That two columns together have one of the pairs of values."""
    if dialect_of(connection) == "sqlite":
        pair = func.json_each(json.dumps(list(values))).table_valued("value").c.value
        listed = select(func.json_extract(pair, "$[0]"), func.json_extract(pair, "$[1]"))
        return tuple_(*columns).in_(listed)
    arrays = [
        literal([value[i] for value in values], ARRAY(column.type))
        for i, column in enumerate(columns)
    ]
    pairs = func.unnest(*arrays).table_valued("a", "b").render_derived()
    return tuple_(*columns).in_(select(pairs.c.a, pairs.c.b))


def by_index(connection: Connection) -> None:
    """Have PostgreSQL find the rows of each further statement of this transaction by an index.

    For statements that are the same for ever and of which each part has an index. The planner
    would choose by what it last counted, up to a minute ago: where 20,000 deliveries came to wait
    since then, it read all of them for each endpoint. Plans are kept too, also those by which
    foreign keys are checked: else one is made for each row.
    """
    if dialect_of(connection) == "postgresql":
        set_locally(connection, BY_INDEX)


PLANS = dict.fromkeys(
    (
        "enable_seqscan",
        "enable_bitmapscan",
        "enable_hashjoin",
        "enable_mergejoin",
        "enable_sort",
        "enable_incremental_sort",
    ),
    "off",
) | {"plan_cache_mode": "auto"}


def keep_plans(connection: Connection) -> None:
    """Have PostgreSQL plan once how it checks foreign keys, and not for each row that is inserted.

    Before rows are inserted, until `plan_anew` or the end of the transaction. Not for a read that
    may go by several indexes: it would be kept as it was planned when the table was small.
    """
    if dialect_of(connection) == "postgresql":
        set_locally(connection, KEEP_PLANS)


def plan_anew(connection: Connection) -> None:
    """Have PostgreSQL plan each statement for what it is given, and for its tables as they are."""
    if dialect_of(connection) == "postgresql":
        set_locally(connection, PLAN_ANEW)


KEEP_PLANS = setting({"enable_seqscan": "off", "plan_cache_mode": "auto"})
PLAN_ANEW = setting({"enable_seqscan": "on", "plan_cache_mode": "force_custom_plan"})
BY_INDEX = setting(PLANS)


def in_one_step(connection: Connection, statement: str, given: Any) -> Any:
    """What a statement of SQLite answers as one JSON text, whatever the number of rows.

    Its thread gives up the interpreter with every row, too, and may wait long to have it back.
    """
    return msgspec.json.decode(connection.exec_driver_sql(statement, given).scalar_one())


LEAVE = " ON CONFLICT DO NOTHING"


def insert_missing(connection: Connection, table: Table, rows: Rows) -> int:
    """Insert the rows whose unique keys are not there yet; leave the others. Returns how many.

    Give the rows in one order everywhere: two transactions that insert the same keys in
    different orders would wait for each other.
    """
    if not rows:
        return 0
    names = tuple(rows[0])
    if dialect_of(connection) == "sqlite":
        values = _values_of(connection, table, names, rows)
        return in_steps(connection, values, partial(_insertion_sqlite, table, names, (), LEAVE))
    return connection.execute(_insertion(table, names), columns_of(names, rows)).rowcount


def insert_values(
    connection: Connection,
    table: Table,
    names: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
    shared: Mapping[str, Any],
) -> None:
    """Insert rows that are values alone, in the order of these columns, and what all of them share.

    What is shared travels once. Values are written as they are: of no column one is changed on its
    way. No row with one of their unique keys may be there.
    """
    if not rows:
        return
    if dialect_of(connection) == "sqlite":
        statement = partial(_insertion_sqlite, table, names, tuple(shared), "")
        in_steps(connection, rows, statement, shared=tuple(shared.values()))
    else:
        insertion = _insertion(table, names, tuple(shared), "")
        connection.execute(insertion, {**_turned(names, rows), **shared})


def inserted(
    connection: Connection,
    table: Table,
    names: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
    shared: Mapping[str, Any],
) -> dict[tuple[Any, ...], int]:
    """As `insert_values`, but leave what is there; returns the key of each new row by its values.

    The columns must be unique together. On SQLite, where nobody else writes meanwhile, give only
    rows that are not there: their keys follow each other.
    """
    if not rows:
        return {}
    if dialect_of(connection) == "sqlite":
        statement = partial(_insertion_sqlite, table, names, tuple(shared), "")
        keys = _numbered(connection, rows, statement, tuple(shared.values()))
        return dict(zip(rows, keys, strict=True))
    returning = f" RETURNING {', '.join(table.c[name].name for name in (*names, 'key'))}"
    insertion = _insertion(table, names, tuple(shared), LEAVE + returning)
    new = connection.execute(insertion, {**_turned(names, rows), **shared})
    return {tuple(row[:-1]): row[-1] for row in new}


def _turned(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    """The values of the rows by column."""
    return {name: list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}


def _numbered(
    connection: Connection,
    rows: Sequence[Sequence[Any]],
    insertion: Callable[[int], str],
    shared: tuple[Any, ...],
) -> Iterator[int]:
    """Insert the rows; gives the key that SQLite has given each.

    Asked to return them, it would go a step for each row: its thread gives up the interpreter with
    every step.
    """
    for step in _each_step(connection, rows, insertion, shared):
        yield from range(step.lastrowid - step.rowcount + 1, step.lastrowid + 1)


def update_all(
    connection: Connection,
    table: Table,
    key: str,
    rows: Rows,
    *,
    names: tuple[str, ...] | None = None,
) -> None:
    """Write each row over the one of the same `key`; of their columns these, or all."""
    if names is None:
        names = tuple(rows[0]) if rows else ()
    if len(names) < 2:
        return
    if dialect_of(connection) == "sqlite":
        values = _values_of(connection, table, names, rows)
        in_steps(connection, values, partial(_update_sqlite, table, key, names))
    else:
        connection.execute(_update_of_all(table, key, names), columns_of(names, rows))


def _values_of(
    connection: Connection, table: Table, names: tuple[str, ...], rows: Rows
) -> list[tuple[Any, ...]]:
    own = {name: to for name in names if (to := _bound(table.c[name], connection.dialect))}
    if own:
        rows = [{**row, **{name: to(row[name]) for name, to in own.items()}} for row in rows]
    pick = itemgetter(*names, names[0])  # one more: of one name alone it would pick no tuple
    return [pick(row)[:-1] for row in rows]


def in_steps(
    connection: Connection,
    rows: Sequence[Sequence[Any]],
    statement: Callable[[int], str],
    *,
    shared: tuple[Any, ...] = (),
) -> int:
    """Run a statement that carries so many rows until all are written; returns how many were.

    The rows are values alone, in the order of the statement; its first parameters are what they
    share. For SQLite.
    """
    return sum(step.rowcount for step in _each_step(connection, rows, statement, shared))


def _each_step(
    connection: Connection,
    rows: Sequence[Sequence[Any]],
    statement: Callable[[int], str],
    shared: tuple[Any, ...],
) -> Iterator[CursorResult[Any]]:
    done = 0
    while left := len(rows) - done:
        step = next(size for size in STEPS if size <= left)
        values = (*shared, *chain.from_iterable(rows[done : done + step]))
        yield connection.exec_driver_sql(statement(step), values)
        done += step


def _bound(column: Column[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """What changes values of the column on their way, where its type is one of ours."""
    if not isinstance(column.type, TypeDecorator):
        return None
    return column.type.bind_processor(dialect)


def columns_of(names: Sequence[str], rows: Rows) -> dict[str, list[Any] | None]:
    """The same values, by column, as `unnest` takes them."""
    return {name: unnested([row[name] for row in rows]) for name in names}


def unnested(column: list[Any]) -> list[Any] | None:
    """The values of a column as `unnest` takes them beside one that has all its values.

    None where all are NULL: `unnest` fills up. asyncpg takes longer for a value of an array than
    for anything else of a row.
    """
    return None if column.count(None) == len(column) else column


@cache
def _insertion(
    table: Table,
    names: tuple[str, ...],
    shared: tuple[str, ...] = (),
    how: str = LEAVE,
) -> TextClause:
    same = "".join(f"CAST(:{name} AS {_type(table, name)}), " for name in shared)
    insertion = text(
        f"{_into(table, (*shared, *names))}"  # noqa: S608 - our own names
        f" SELECT {same}n.* FROM {_unnested(table, names)} AS n{how}"
    )
    return _typed(insertion, table, names)


@cache
def _update_of_all(table: Table, key: str, names: tuple[str, ...]) -> TextClause:
    changes = ", ".join(f"{table.c[name].name} = n.{name}" for name in names if name != key)
    change = text(
        f"UPDATE {table.name} SET {changes}"  # noqa: S608 - our own names
        f" FROM {_unnested(table, names)} AS n({', '.join(names)})"
        f" WHERE {table.name}.{table.c[key].name} = n.{key}"
    )
    return _typed(change, table, names)


@cache
def _insertion_sqlite(
    table: Table,
    names: tuple[str, ...],
    shared: tuple[str, ...],
    how: str,
    number: int,
) -> str:
    values = values_sqlite(names, number, shared)
    return f"{_into(table, (*shared, *names))} {values}{how}"


def _into(table: Table, names: Sequence[str]) -> str:
    return f"INSERT INTO {table.name} ({', '.join(table.c[name].name for name in names)})"


@cache
def _update_sqlite(table: Table, key: str, names: tuple[str, ...], number: int) -> str:
    changes = ", ".join(f"{table.c[name].name} = n.{name}" for name in names if name != key)
    return (
        f"WITH n({', '.join(names)}) AS MATERIALIZED ({values_sqlite(names, number)})"  # noqa: S608 - our own names
        f" UPDATE {table.name} SET {changes} FROM n"
        f" WHERE {table.name}.{table.c[key].name} = n.{key}"
    )


def values_sqlite(names: Sequence[str], number: int, shared: Sequence[str] = ()) -> str:
    """So many rows of parameters; the first parameters are in each of them."""
    same = (f"?{place + 1}" for place in range(len(shared)))
    row = f"({', '.join((*same, *'?' * len(names)))})"
    return f"VALUES {', '.join([row] * number)}"


def _typed(statement: TextClause, table: Table, names: Sequence[str]) -> TextClause:
    """With the types whose values are changed on their way: a text knows none of itself."""
    own = [name for name in names if isinstance(table.c[name].type, TypeDecorator)]
    arrays = [bindparam(name, type_=ARRAY(table.c[name].type)) for name in own]
    return statement.bindparams(*arrays)


def _unnested(table: Table, names: Sequence[str]) -> str:
    arrays = (f"CAST(:{name} AS {_type(table, name)}[])" for name in names)
    return f"unnest({', '.join(arrays)})"


def _type(table: Table, name: str) -> str:
    return table.c[name].type.compile(_POSTGRESQL)
