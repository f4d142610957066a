"""Rows and frozen types of ours: a column is read into the field of its name, and written from it.

So a column that has a field needs no line of code here or where its table is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from operator import attrgetter, itemgetter
from typing import Any, TypeVar, get_args, get_type_hints

from sqlalchemy import Row, Select, Table

from batchbell.storage.engine import storable

T = TypeVar("T")
Convert = Callable[[Any], Any]


def places(query: Select[Any]) -> dict[str, int]:
    """Where the columns are in a row of the query. By name two of them may be called the same."""
    return {str(column.key): place for place, column in enumerate(query.selected_columns)}


def reader(
    kind: type[T], query: Select[Any], *, conversions: Mapping[str, Convert] | None = None
) -> Callable[[Row[Any]], T]:
    """What makes a value of `kind` from a row of the query, which has a column for each field.

    `conversions` has those whose types do not say what a value becomes. Words become members of
    their enums. Columns are read by their place: by its name each costs half a microsecond.
    """
    hints = get_type_hints(kind)
    names = tuple(hints)
    at = places(query)
    read = itemgetter(*(at[name] for name in names), 0)  # one more: of one alone it makes no tuple
    converted = {name: _by_type(hints[name]) for name in names} | dict(conversions or {})
    left = [(name, convert) for name, convert in converted.items() if convert is not None]

    def made(row: Row[Any]) -> T:
        values = dict(zip(names, read(row), strict=False))
        for name, convert in left:
            if (value := values[name]) is not None:
                values[name] = convert(value)
        return kind(**values)

    return made


def _values(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """What reads these attributes. `attrgetter` gives no tuple for one name."""
    read = attrgetter(*names)
    return read if len(names) > 1 else lambda value: (read(value),)


def _by_type(hint: Any) -> Convert | None:
    words = [one for one in (hint, *get_args(hint)) if _is_enum(one)]
    if not words:
        return None
    member_of = {member.value: member for member in words[0]}.__getitem__
    if getattr(hint, "__origin__", None) is frozenset:
        return lambda text: frozenset(map(member_of, text.split()))
    return member_of


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, StrEnum)


def writer(kind: type[T], table: Table, *, but: Collection[str]) -> Callable[[T], dict[str, Any]]:
    """What makes the values of the columns that have a field of `kind`, apart from some."""
    hints = get_type_hints(kind)
    keys = [column.key for column in table.columns]
    names = [key for key in keys if key in hints and key not in but]
    read = _values(names)
    left = [(name, to) for name in names if (to := _to_column(hints[name])) is not None]

    def made(value: T) -> dict[str, Any]:
        values = dict(zip(names, read(value), strict=True))
        for name, to_column in left:
            if (one := values[name]) is not None:
                values[name] = to_column(one)
        return values

    return made


def _to_column(hint: Any) -> Convert | None:
    if getattr(hint, "__origin__", None) is frozenset:
        return joined
    kinds = (hint, *get_args(hint))
    if any(map(_is_enum, kinds)):
        return attrgetter("value")
    return storable if str in kinds else None


def joined(words: Iterable[str]) -> str:
    """Several words in one column."""
    return " ".join(sorted(words))
