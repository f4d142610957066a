"""Statements that carry many rows, whatever their number.

On PostgreSQL every column travels as one array: one round trip, and one text to prepare. SQLite
has no round trip to save and takes the rows one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
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
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import ARRAY

from batchbell.storage.engine import dialect_of

Rows = Sequence[Mapping[str, Any]]
"""All with the same keys of columns; what a row leaves out is NULL."""

_POSTGRESQL = postgresql.dialect()  # type: ignore[no-untyped-call]


def among(
    connection: Connection, column: Column[Any], values: Collection[Any]
) -> ColumnElement[bool]:
    """That the column has one of the values: one parameter, however many there are."""
    if dialect_of(connection) == "sqlite":
        listed = func.json_each(json.dumps(list(values))).table_valued("value")
        return column.in_(select(listed.c.value))
    return column == any_(literal(list(values), ARRAY(column.type)))


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


def insert_missing(connection: Connection, table: Table, rows: Rows) -> None:
    """Insert the rows whose unique keys are not there yet; leave the others as they are.

    Give the rows in one order everywhere: two transactions that insert the same keys in
    different orders would wait for each other.
    """
    if not rows:
        return
    if dialect_of(connection) == "sqlite":
        connection.execute(sqlite.insert(table).on_conflict_do_nothing(), rows)
    else:
        names = tuple(rows[0])
        connection.execute(_insertion(table, names), columns_of(names, rows))


def update_all(connection: Connection, table: Table, key: str, rows: Rows) -> None:
    """Write each row over the one of the same `key`."""
    if not rows:
        return
    names = tuple(rows[0])
    if dialect_of(connection) == "sqlite":
        renamed = [{f"{name}_": value for name, value in row.items()} for row in rows]
        connection.execute(_update_of_one(table, key, names), renamed)
    else:
        connection.execute(_update_of_all(table, key, names), columns_of(names, rows))


def columns_of(names: Sequence[str], rows: Rows) -> dict[str, list[Any]]:
    """The same values, by column."""
    return {name: [row[name] for row in rows] for name in names}


@cache
def _insertion(table: Table, names: tuple[str, ...]) -> TextClause:
    insertion = text(
        f"INSERT INTO {table.name} ({', '.join(table.c[name].name for name in names)})"  # noqa: S608 - our own names
        f" SELECT * FROM {_unnested(table, names)} ON CONFLICT DO NOTHING"
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
def _update_of_one(table: Table, key: str, names: tuple[str, ...]) -> Any:
    changes: dict[str, Any] = {name: bindparam(f"{name}_") for name in names if name != key}
    return update(table).where(table.c[key] == bindparam(f"{key}_")).values(changes)


def _typed(statement: TextClause, table: Table, names: Sequence[str]) -> TextClause:
    """With the types whose values are changed on their way: a text knows none of itself."""
    own = [name for name in names if isinstance(table.c[name].type, TypeDecorator)]
    arrays = [bindparam(name, type_=ARRAY(table.c[name].type)) for name in own]
    return statement.bindparams(*arrays)


def _unnested(table: Table, names: Sequence[str]) -> str:
    types = [(name, table.c[name].type.compile(_POSTGRESQL)) for name in names]
    return f"unnest({', '.join(f'CAST(:{name} AS {type_}[])' for name, type_ in types)})"
