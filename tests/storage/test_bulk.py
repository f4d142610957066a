"""Statements that carry many rows: each is written once, and as it is."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, select

from batchbell.core.model import DEFAULT_PROJECT, Account
from batchbell.storage import schema
from batchbell.storage.bulk import insert_missing, inserted, update_all
from batchbell.storage.engine import Store

ODD = 'it\'s \u20ac, "quoted",\n[1, 2], \U0001f600 and ?'


def batch(account_id: str, number: int) -> dict[str, Any]:
    return {
        "project_id": DEFAULT_PROJECT,
        "account_id": account_id,
        "id": f"batch_{number:05}",
        "status": "validating",
        "generation": number,
        "registered_at": number + 0.25,
        "updated_at": float(number),
        "check_at": 0.0,
        "look_error": ODD if number % 3 else None,
    }


def found(connection: Connection) -> list[dict[str, Any]]:
    query = select(schema.batches).order_by(schema.batches.c.id)
    keys = schema.batches.columns.keys()
    return [dict(zip(keys, row, strict=True)) for row in connection.execute(query)]


@pytest.mark.parametrize("number", [1, 2, 3, 49, 99, 100, 101, 288])
async def test_each_row_is_written_once(store: Store, account: Account, number: int) -> None:
    rows = [batch(account.id, n) for n in range(number)]
    inserted = await store.write(insert_missing, schema.batches, rows[1:])
    assert inserted == number - 1
    assert await store.write(insert_missing, schema.batches, rows) == 1
    there = await store.read(found)
    assert [{name: row[name] for name in rows[0]} for row in there] == rows

    changed = [{"key": row["key"], "updated_at": 0.5, "look_error": row["id"]} for row in there]
    await store.write(update_all, schema.batches, "key", changed[1:])
    kept = [{**row, **change} for row, change in zip(there[1:], changed[1:], strict=True)]
    assert await store.read(found) == [there[0], *kept]

    none = [{"key": row["key"], "updated_at": 0.5, "look_error": None} for row in there]
    await store.write(update_all, schema.batches, "key", none)
    assert [row["look_error"] for row in await store.read(found)] == [None] * number


async def test_no_rows_and_no_columns_are_nothing_to_write(store: Store, account: Account) -> None:
    assert await store.write(insert_missing, schema.batches, []) == 0
    await store.write(insert_missing, schema.batches, [batch(account.id, 1)])
    before = await store.read(found)
    await store.write(update_all, schema.batches, "key", [])
    await store.write(update_all, schema.batches, "key", [{"key": before[0]["key"]}])
    assert await store.read(found) == before


@pytest.mark.parametrize("number", [1, 2, 3, 49, 99, 100, 101, 288])
async def test_the_keys_of_new_rows_are_told(store: Store, account: Account, number: int) -> None:
    await store.write(insert_missing, schema.batches, [batch(account.id, 10_000)])
    names = ("id", "account_id")
    rows = [batch(account.id, n) for n in reversed(range(number))]
    values = [tuple(row.pop(name) for name in names) for row in rows]
    keys = await store.write(inserted, schema.batches, names, values, rows[0])
    there = {row["id"]: row for row in await store.read(found)}
    assert keys == {(id, account.id): there[id]["key"] for id, _ in values}
    assert all(there[id].items() >= rows[0].items() for id, _ in values)
    assert await store.write(inserted, schema.batches, names, [], rows[0]) == {}
