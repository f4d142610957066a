"""Sealing what the database holds: what is plain, or is sealed under an older key.

A few rows at a time, each written only if it still is what was read: so this may run beside other
processes, and be killed anywhere.
"""

from __future__ import annotations

from sqlalchemy import Column, Connection, Text, bindparam, column, func, select, table, update
from sqlalchemy.sql.expression import TableClause

from batchbell import failpoints
from batchbell.storage.engine import Store
from batchbell.storage.schema import metadata
from batchbell.storage.sealing import HEAD, ID_LENGTH, Sealed, seal_of

STEP = 200
"""Rows that one transaction seals."""

SEALED: tuple[Column[str], ...] = tuple(
    one for each in metadata.sorted_tables for one in each.columns if isinstance(one.type, Sealed)
)
"""Every column of secrets; its table's key is `id`."""


def _raw(sealed: Column[str]) -> TableClause:
    """The column's table as it is kept: what is read is not opened, what is written not sealed."""
    return table(sealed.table.name, column("id", Text), column(sealed.name, Text))


def place_of(sealed: Column[str]) -> str:
    """The name of a column of secrets, to which its texts are bound."""
    return f"{sealed.table.name}.{sealed.name}"


def ids_in_use(connection: Connection) -> set[str]:
    """The ids of the keys under which anything is sealed."""
    found: set[str] = set()
    for sealed in SEALED:
        kept = _raw(sealed).c[sealed.name]
        id = func.substr(kept, len(HEAD) + 1, ID_LENGTH)
        query = select(id).where(kept.startswith(HEAD, autoescape=True)).distinct()
        found.update(connection.execute(query).scalars())
    return found


async def seal_all(store: Store, *, unless: str) -> int:
    """Seal under the first key what does not begin with `unless`; return how many texts."""
    count = 0
    for sealed in SEALED:
        after: str | None = ""
        while after is not None:
            done, after = await store.write(_seal_some, sealed, after=after, unless=unless)
            count += done
    return count


def _seal_some(
    connection: Connection, sealed: Column[str], *, after: str, unless: str
) -> tuple[int, str | None]:
    """Seal up to STEP rows behind the id `after`; how many, and where to go on if there is more."""
    raw = _raw(sealed)
    kept = raw.c[sealed.name]
    rows = connection.execute(
        select(raw.c.id, kept)
        .where(raw.c.id > after, kept.isnot(None), kept.not_like(f"{unless}%"))
        .order_by(raw.c.id)
        .limit(STEP)
    ).all()
    if not rows:
        return 0, None
    seal, place = seal_of(connection.dialect), place_of(sealed)
    opened = [(id, was, seal.open(was, column=place)) for id, was in rows]
    anew = [
        {"id_": id, "was": was, "now": seal.close(text, column=place)} for id, was, text in opened
    ]
    connection.execute(
        update(raw)
        .where(raw.c.id == bindparam("id_"), kept == bindparam("was"))
        .values({kept: bindparam("now")}),
        anew,
    )
    failpoints.reach(failpoints.IN_SEALING)
    return len(rows), rows[-1][0] if len(rows) == STEP else None
