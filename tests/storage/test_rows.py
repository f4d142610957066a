"""A batch's columns are read and written by the names of its fields: none is forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import fields, replace
from sqlalchemy import (
    Column,
    Connection,
    Double,
    Integer,
    MetaData,
    Row,
    Table,
    Text,
    create_engine,
    insert,
    select,
)

from batchbell.core.model import (
    DEFAULT_PROJECT,
    Alarm,
    Batch,
    BatchOutcome,
    Counts,
    Doubtful,
    Sighting,
    Status,
    StatusChange,
)
from batchbell.storage import batches, schema
from batchbell.storage.rows import reader, writer
from tests.storage.scene import Scene, snapshot

JOINED = {"account", "provider", "account_reason"}
"""What is read of a batch's account."""


class Kind(Struct, frozen=True, kw_only=True):
    """As the next field of a batch might be."""

    id: str
    status: Status
    outcome: BatchOutcome | None
    alarms: frozenset[Alarm]
    weight: float | None
    tries: int = 0
    note: str | None = None


FULL = Kind(
    id="a",
    status=Status.LOST,
    outcome=BatchOutcome.PARTIAL,
    alarms=frozenset({Alarm.OVERDUE, Alarm.NO_PROGRESS}),
    weight=1.5,
    tries=3,
    note="N\u00f6te",
)
BARE = Kind(id="b", status=Status.FAILED, outcome=None, alarms=frozenset(), weight=None)


@pytest.mark.parametrize("value", [FULL, BARE])
def test_a_value_comes_back_as_it_was_written(value: Kind) -> None:
    table = Table(
        "kinds",
        MetaData(),
        Column("id", Text),
        Column("status", Text),
        Column("outcome", Text),
        Column("alarms", Text),
        Column("weight", Double),
        Column("tries", Integer),
        Column("note", Text),
        Column("of_nobody", Text),
    )
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(insert(table), [writer(Kind, table, but=())(value)])
        query = select(*reversed(table.columns))
        assert reader(Kind, query)(connection.execute(query).one()) == value
    engine.dispose()


def test_half_a_character_spoils_no_write() -> None:
    table = Table("kinds", MetaData(), Column("id", Text), Column("note", Text))
    made = writer(Kind, table, but=("id",))(replace(FULL, note="half \ud83d"))
    assert made == {"note": "half \ufffd"}


def test_each_field_of_a_batch_has_a_column_and_each_column_is_written() -> None:
    columns = {*schema.batches.columns.keys()}
    names = {one.name for one in fields(Batch)}
    assert names - columns == JOINED
    written = set(batches._values(a_batch()))
    assert written | {*batches.FIXED} == columns


def a_batch() -> Batch:
    return Batch(
        key=1,
        project_id="p",
        account_id="a",
        account="openai",
        provider="openai",
        id="batch_1",
        status=Status.IN_PROGRESS,
        registered_at=1.0,
        updated_at=1.0,
    )


CHANGES: dict[str, Any] = {
    "status": Status.COMPLETED,
    "updated_at": 11.5,
    "snapshot": snapshot("batch_1", output_file_id="file_1"),
    "ended_at": 12.5,
    "generation": 7,
    "missing_since": 13.5,
    "check_at": 14.5,
    "doubts": 3,
    "look_error": "It is away.",
    "expunged_at": 15.5,
    "merged_outcome": BatchOutcome.PARTIAL,
    "progress_at": 16.5,
    "alarm_at": 17.5,
    "alarms": frozenset({Alarm.OVERDUE}),
    "history": (StatusChange(at=18.5, status=Status.COMPLETED, provider_status="done"),),
}


async def test_all_that_may_change_of_a_batch_is_kept(scene: Scene) -> None:
    await scene.register("batch_1")
    batch = await scene.store.read(batches.get_batch, DEFAULT_PROJECT, "batch_1")
    changed = replace(batch, **CHANGES)
    assert {*CHANGES} == {one.name for one in fields(Batch)} - {*batches.FIXED} - JOINED
    await scene.store.write(batches.save, [changed])
    assert await scene.store.read(batches.get_batch, DEFAULT_PROJECT, "batch_1") == changed


async def test_of_a_page_each_batch_is_written_whole_though_each_changes_otherwise(
    scene: Scene,
) -> None:
    ids = [f"batch_{n}" for n in range(6)]
    await scene.register(*ids)
    begun = Counts(total=3, completed=1, failed=0)
    await scene.see(*(snapshot(id, Status.IN_PROGRESS, counts=begun) for id in ids[1:]))
    scene.clock.advance(60)
    page: list[Sighting] = [
        snapshot(ids[0], Status.IN_PROGRESS, model="gpt", input_file_id="file_in"),
        snapshot(ids[1], output_file_id="file_out", metadata={"team": "red"}),
        snapshot(ids[2], Status.FAILED, error_file_id="file_error"),
        snapshot(ids[3], None),
        Doubtful(ids[4], "no JSON"),
        snapshot(ids[5], Status.IN_PROGRESS, counts=begun),
    ]
    before = {row.id: dict(row._mapping) for row in await scene.store.read(rows_of)}
    await scene.see(*page)
    for row in await scene.store.read(rows_of):
        written = batches._values(batches.to_batch(row))
        assert {name: row._mapping[schema.batches.c[name]] for name in written} == written
        assert (dict(row._mapping) != before[row.id]) == (row.id != ids[5])


def rows_of(connection: Connection) -> list[Row[Any]]:
    return list(connection.execute(batches.joined_batches()).all())


async def test_a_batch_of_before_progress_was_kept_has_made_none_since_it_was_registered(
    scene: Scene,
) -> None:
    await scene.register("batch_1")
    await scene.store.write(lambda c: c.execute(schema.batches.update().values(progress_at=0.0)))
    found = await scene.store.read(batches.get_batch, DEFAULT_PROJECT, "batch_1")
    assert found.progress_at == found.registered_at > 0
