"""The SQL in docs/howto/be-idempotent.md takes a webhook once, on both databases."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import asyncpg

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "be-idempotent.md"
STATEMENT = re.compile(r"^(?:CREATE|INSERT|DELETE)[^;]*;", re.MULTILINE)


def statements() -> list[str]:
    """The table, the insert, the sweep of old rows, and the delete of one."""
    blocks = re.findall(r"^```sql\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return [statement for block in blocks for statement in STATEMENT.findall(block)]


def test_sqlite_takes_a_webhook_once_and_can_forget_it() -> None:
    table, insert, sweep, forget = statements()
    database = sqlite3.connect(":memory:")
    database.execute(table)
    hook = {"webhook_id": "evt_…"}
    taken = [database.execute(insert, hook).rowcount for _ in range(2)]
    assert taken == [1, 0]
    assert database.execute(forget).rowcount == 1
    assert database.execute(insert, hook).rowcount == 1
    assert database.execute(sweep, {"a_month_ago": "2001-01-01"}).rowcount == 0
    assert database.execute(sweep, {"a_month_ago": "9999-01-01"}).rowcount == 1
    database.close()


async def test_postgresql_takes_a_webhook_once_and_can_forget_it(postgres_url: str) -> None:
    table, insert, sweep, forget = statements()
    database = await asyncpg.connect(postgres_url)
    await database.execute(table)
    taking = insert.replace(":webhook_id", "$1")
    taken = [await database.execute(taking, "evt_…") for _ in range(2)]
    assert taken == ["INSERT 0 1", "INSERT 0 0"]
    assert await database.execute(forget) == "DELETE 1"
    await database.execute(taking, "evt_…")
    assert await database.execute(sweep.replace(":a_month_ago", "now()")) == "DELETE 1"
    await database.close()
