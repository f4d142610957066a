"""The database itself refuses rows that may not be."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from batchbell.core.model import DEFAULT_PROJECT
from batchbell.core.replay import ReplayFilter
from batchbell.storage import keys, projects, replays
from tests.storage.scene import Scene

IMPOSSIBLE = [
    "UPDATE batches SET status = 'dreaming'",
    "UPDATE batches SET ended_at = NULL",
    "UPDATE batches SET status = 'in_progress'",
    "UPDATE batches SET fingerprint = NULL",
    "UPDATE batches SET account_id = 'acc_0'",
    "UPDATE accounts SET state = 'asleep'",
    "UPDATE accounts SET state = 'failing'",
    "UPDATE accounts SET trouble = 'but active'",
    "UPDATE accounts SET lease_token = 'lease_1'",
    "UPDATE accounts SET lease_until = 5",
    "UPDATE endpoints SET state = 'asleep'",
    "UPDATE endpoints SET state = 'disabled'",
    "UPDATE endpoints SET reason = 'but active'",
    "UPDATE endpoints SET failures = 1",
    "UPDATE endpoints SET failing_since = 1",
    "UPDATE watches SET dialect = 'latin'",
    "UPDATE watches SET endpoint_id = 'whe_0'",
    "UPDATE deliveries SET state = 'sent', due_at = NULL",
    "UPDATE deliveries SET due_at = NULL",
    "UPDATE deliveries SET state = 'held'",
    "UPDATE deliveries SET finished_at = 1",
    "UPDATE deliveries SET state = 'delivered', due_at = NULL",
    "UPDATE deliveries SET state = 'held', due_at = NULL, lease_token = 'lease_1'",
    "UPDATE deliveries SET event_id = 'evt_0'",
    "UPDATE replays SET state = 'asleep'",
    "UPDATE replays SET state = 'done'",
    "UPDATE replays SET finished_at = 1",
    "UPDATE replays SET lease_token = 'lease_1'",
    "UPDATE replays SET state = 'done', finished_at = 1, lease_token = 'l', lease_until = 1",
    "UPDATE replays SET status = 'broken'",
    "UPDATE replays SET pace = 0",
    "DELETE FROM endpoints",
    "DELETE FROM accounts",
]


@pytest.mark.parametrize("statement", IMPOSSIBLE)
async def test_impossible_rows_are_refused(scene: Scene, statement: str) -> None:
    await scene.due("batch_1")
    await scene.store.write(
        replays.create,
        DEFAULT_PROJECT,
        ReplayFilter(),
        replays.Counted(0, 0),
        mint=scene.mint,
        now=scene.clock(),
    )
    with pytest.raises(IntegrityError):
        await scene.store.write(lambda c: c.execute(text(statement)))


async def test_a_key_is_found_until_it_is_revoked(scene: Scene) -> None:
    write, read = scene.store.write, scene.store.read
    assert not await read(keys.ever_made)
    made = await write(
        keys.create_key,
        DEFAULT_PROJECT,
        name="ci",
        key="bb_secret_1234",
        mint=scene.mint,
        now=scene.clock(),
    )
    assert await read(keys.ever_made)
    assert await read(keys.any_in_force)
    assert await read(keys.find_key, "bb_secret_1234") == made
    assert await read(keys.find_key, "bb_secret_1235") is None
    kept = await read(lambda c: c.execute(text("SELECT * FROM keys")).one())
    assert "bb_secret_1234" not in map(str, kept)

    for _ in range(2):
        revoked = await write(keys.revoke_key, DEFAULT_PROJECT, made.id, now=scene.clock() + 1)
    assert revoked.revoked_at == scene.clock() + 1
    assert await read(keys.find_key, "bb_secret_1234") is None
    assert not await read(keys.any_in_force)
    assert await read(keys.ever_made), "it is no local mode again"
    assert await read(keys.list_keys, DEFAULT_PROJECT) == [revoked]


async def test_a_projects_secret_stays_until_it_is_set(scene: Scene) -> None:
    write, read = scene.store.write, scene.store.read
    first = await read(projects.webhook_secret, DEFAULT_PROJECT)
    await write(projects.ensure_project, id=DEFAULT_PROJECT, secret="whsec_other", now=1.0)
    assert await read(projects.webhook_secret, DEFAULT_PROJECT) == first
    await write(projects.set_webhook_secret, DEFAULT_PROJECT, "whsec_new")
    assert await read(projects.webhook_secret, DEFAULT_PROJECT) == "whsec_new"
    assert await read(projects.webhook_secret, "other") is None
