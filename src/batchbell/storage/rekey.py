"""Sealing what the database holds: what is plain, or is sealed under an older key.

A few rows at a time, each written only if it still is what was read: so this may run beside other
processes, and be killed anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Column, Connection, Text, bindparam, column, func, select, table, update
from sqlalchemy.sql.expression import TableClause

from batchbell import failpoints
from batchbell.core.errors import SettingsError
from batchbell.storage import masterkeys
from batchbell.storage.engine import Store
from batchbell.storage.masterkeys import SETTING, MasterKeys
from batchbell.storage.schema import metadata
from batchbell.storage.sealing import HEAD, ID_LENGTH, Seal, Sealed, head_of, seal_of

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


PASSES = 5
"""How often a rekey looks again for what others have written meanwhile under an older key."""


async def unlock(store: Store, *, setting: str | None, file: Path | None, write: bool) -> None:
    """Let the store seal and open secrets, and seal those that are still plain.

    `setting` is BATCHBELL_MASTER_KEY, `file` the key file's place, where there may be one; it is
    made if it is needed. Without `write` nothing is made or sealed. Raises SettingsError where a
    key that is needed is not there, and where the keys cannot be read.
    """
    keys = _found(setting, file)
    needed = await store.read(ids_in_use)
    if not keys.keys and file is not None and write and not needed:
        keys = masterkeys.make_file(file)
    _check(keys, needed, file)
    store.use(keys)
    if write and store.seals:
        await seal_all(store, unless=HEAD)


def _found(setting: str | None, file: Path | None) -> MasterKeys:
    """The environment's keys; those of a file open as well, so that one may move from it."""
    kept = masterkeys.read_file(file) if file is not None else ()
    if setting:
        return MasterKeys(tuple(dict.fromkeys((*masterkeys.read_setting(setting), *kept))))
    return MasterKeys(kept, file if kept else None)


def _check(keys: MasterKeys, needed: set[str], file: Path | None) -> None:
    if missing := sorted(needed - set(Seal(keys.keys).ids)):
        place = f", or put back the key file {file}" if file is not None else ""
        raise SettingsError(
            f"Secrets in the database are sealed under the master key {', '.join(missing)}, which"
            f" is not here: add it to {SETTING}{place}. Without it they cannot be read."
        )


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """What a rekey has done."""

    key: str
    """The id of the key that seals everything now."""
    source: str
    texts: int
    """How many were sealed anew."""
    idle: tuple[str, ...]
    """The ids of keys that seal nothing any more, and may be dropped."""


async def rekey(store: Store) -> Rekeyed:
    """Seal everything anew, under a new key in the key file, or the first of the environment's.

    A kill leaves everything readable; then run it again. Raises SettingsError without a key, or
    where another process goes on sealing under an older one.
    """
    if not store.seals:
        raise SettingsError(f"{SETTING} is not set: {masterkeys.HOW_TO_MAKE}, and set it first.")
    if store.keys.file is not None:
        _keep(store, store.keys.file, (masterkeys.new_key(), *store.keys.keys))
    first, *others = Seal(store.keys.keys).ids
    async with store.erasing():
        texts = await _seal_under(store, first)
    if store.keys.file is not None:
        _keep(store, store.keys.file, store.keys.keys[:1])
    return Rekeyed(first, store.keys.source, texts, tuple(others))


def _keep(store: Store, file: Path, keys: tuple[bytes, ...]) -> None:
    masterkeys.write_file(file, keys)
    store.use(MasterKeys(keys, file))


async def _seal_under(store: Store, id: str) -> int:
    texts = 0
    for _ in range(PASSES):
        texts += await seal_all(store, unless=head_of(id))
        if await store.read(ids_in_use) <= {id}:
            return texts
    raise SettingsError(
        f"Another process goes on sealing under an older key: give all of them the same {SETTING},"
        " start them again, and run this again."
    )
