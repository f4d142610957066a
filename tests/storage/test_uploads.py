"""Which account has a file: found by an index, whatever else there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from batchbell.core.model import DEFAULT_PROJECT, Account, Mint, Status
from batchbell.storage import batches, uploads
from batchbell.storage.engine import Store
from batchbell.storage.watches import Registration, register
from batchbell.workers.janitor import DAY_SECONDS, FORGET_STEP, Janitor
from tests.web.making import a_snapshot

from ..conftest import Clock

MANY = 3000


@pytest.fixture
async def crowded(store: Store, account: Account, mint: Mint, clock: Clock) -> Store:
    """As many uploads as ended batches, each of which has left its files."""

    def fill(connection: Connection) -> None:
        for number in range(MANY):
            row = {"account_id": account.id, "now": clock() + number}
            uploads.expect(connection, DEFAULT_PROJECT, f"file-{number}", **row)
        rows = (
            "INSERT INTO batches (project_id, account_id, id, status, generation, registered_at,"
            " updated_at, check_at, output_file_id, error_file_id) VALUES ('default', :account,"
            " :id, 'in_progress', 1, 1, 1, 0, :out, :err)"
        )
        many = [
            {"account": account.id, "id": f"batch_{n}", "out": f"out-{n}", "err": f"err-{n}"}
            for n in range(MANY)
        ]
        connection.execute(text(rows), many)
        connection.execute(text("ANALYZE"))

    await store.write(fill)
    return store


def plans_of(connection: Connection, work: Callable[[Connection], Any]) -> str:
    """What the database says of how it goes about each statement."""
    said: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, given: Any, _x: Any, _many: bool) -> None:
        said.append((statement, given))

    event.listen(connection, "before_cursor_execute", note)
    work(connection)
    event.remove(connection, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
    rows = [
        row for words, given in said for row in connection.exec_driver_sql(explain + words, given)
    ]
    return "\n".join(str(row[-1]) for row in rows)


async def test_each_file_is_found_and_none_is_searched_for(
    crowded: Store, account: Account
) -> None:
    for id in ("file-7", "out-7", "err-7"):
        assert await crowded.read(uploads.account_of, DEFAULT_PROJECT, id) == account.id
    assert await crowded.read(uploads.account_of, DEFAULT_PROJECT, "file-never") is None
    assert await crowded.read(uploads.account_of, "prj_other", "file-7") is None
    assert await crowded.read(uploads.account_of, "prj_other", "out-7") is None
    assert await crowded.read(uploads.account_of, DEFAULT_PROJECT, "nul\0and\ud83d") is None
    look = lambda c: uploads.account_of(c, DEFAULT_PROJECT, "file-never")  # noqa: E731
    plans = await crowded.read(plans_of, look)
    assert "ix_batches_output_file_id" in plans
    assert "ix_batches_error_file_id" in plans
    assert "uq_files" in plans or "sqlite_autoindex_files" in plans
    assert "Seq Scan" not in plans
    assert "SCAN" not in plans


async def test_old_ones_are_forgotten_in_steps_along_an_index(crowded: Store, clock: Clock) -> None:
    keep: dict[str, Any] = {"retention_days": 1, "attempt_retention_days": 1}
    janitor = Janitor(crowded, clock=clock, **keep)
    clock.advance(DAY_SECONDS + MANY / 2)
    before = clock() - DAY_SECONDS
    forget = lambda c: uploads.forget_old(c, before=before, limit=FORGET_STEP)  # noqa: E731
    plans = await crowded.write(plans_of, forget)
    assert "ix_files_created_at" in plans
    assert await janitor.step()
    gone = await crowded.read(uploads.account_of, DEFAULT_PROJECT, f"file-{2 * FORGET_STEP - 1}")
    kept = await crowded.read(uploads.account_of, DEFAULT_PROJECT, f"file-{2 * FORGET_STEP}")
    assert (gone, kept is None) == (None, False)


async def test_a_sighting_tells_which_files_a_batch_has_left(
    store: Store, account: Account, mint: Mint, clock: Clock
) -> None:
    wanted = [Registration(account_id=account.id, batch_id="batch_1", url="https://a.example/")]
    await store.write(register, DEFAULT_PROJECT, wanted, mint=mint, now=clock())
    seen = a_snapshot("batch_1", Status.COMPLETED, counts=(3, 2, 1))
    how: dict[str, Any] = {"account_id": account.id, "mint": mint, "now": clock()}
    await store.write(batches.observe, sightings=[seen], **how)
    for id in (seen.output_file_id, seen.error_file_id):
        assert id is not None
        assert await store.read(uploads.account_of, DEFAULT_PROJECT, id) == account.id
