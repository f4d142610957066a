"""SIGKILL while results are merged: they are merged again, whole, and once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.conftest import Town

from batchbell import failpoints

LONG = 4_000
"""Lines of a batch whose files are long enough for a child."""


@pytest.mark.parametrize("place", [failpoints.BEFORE_STORING, failpoints.BEFORE_KEEP])
async def test_killed_while_merging(town: Town, place: str) -> None:
    """Pitfall 13: what was finished is paid for; a kill must not lose it."""
    ids = town.sandbox.provider.add_batches(3, total=20)
    process = await town.start(failpoint=f"{place}:2")
    await town.register(ids)
    for id in ids:
        town.sandbox.provider.finish(id, "completed", failed=2)
    await process.killed()
    town.let_leases_run_out()
    await town.start()
    await town.until(lambda: ready(town) == len(ids))
    assert set(await town.all_arrived(ids)) == set(ids)
    assert lines_of_each(town.folder / "results") == [20] * len(ids)


def ready(town: Town) -> int:
    [(number,)] = town.rows("SELECT count(*) FROM results WHERE state = 'ready'")
    return int(number)


def lines_of_each(folder: Path) -> list[int]:
    """Of all files that there are, those of merges that were cut short too."""
    shelved = [path for path in folder.glob("default/*") if path.is_file()]
    return [len(path.read_bytes().splitlines()) for path in shelved]


@pytest.mark.parametrize("place", [failpoints.IN_CHILD])
async def test_killed_children_fail_their_merges_and_not_the_server(town: Town, place: str) -> None:
    """Each child dies of the first thing that it does: no merge comes to its end."""
    ids = town.sandbox.provider.add_batches(2, total=LONG)
    server = await town.start(failpoint=place)
    await town.register(ids)
    for id in ids:
        town.sandbox.provider.finish(id, "completed", failed=2)
    await town.until(lambda: failed_by_a_death(town) == len(ids))
    assert set(await town.all_arrived(ids)) == set(ids), "webhooks go out meanwhile"
    assert await server.terminate() == 0
    town.write("UPDATE results SET due_at = 0")
    await town.start()
    await town.until(lambda: ready(town) == len(ids))
    assert lines_of_each(town.folder / "results") == [LONG] * len(ids)
    assert list((town.folder / "results" / ".scratch").iterdir()) == []


def failed_by_a_death(town: Town) -> int:
    [(number,)] = town.rows("SELECT count(*) FROM results WHERE trouble LIKE '%signal 9%'")
    return int(number)
