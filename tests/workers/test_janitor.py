"""What the janitor deletes from where results are kept: a folder, or a bucket."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.workers.conftest import House
from tests.workers.submitting import hand_over

from batchbell.core.errors import ResultsGone
from batchbell.core.model import DEFAULT_PROJECT
from batchbell.core.submission import new_name
from batchbell.files import results_store as stores
from batchbell.files.results_store import ResultsStore
from batchbell.storage import submissions
from batchbell.workers.janitor import DAY_SECONDS, ORPHAN_SECONDS, Janitor


async def test_request_files_of_submissions_that_never_were_are_deleted_after_a_week(
    house: House, results_store: ResultsStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "LISTED", 2)  # several pages
    how = {"folder": tmp_path / "made", "url": None, "mint": house.mint, "now": house.clock()}
    id = await hand_over(house.store, results_store, house.account.id, 4, **how)
    [part] = (await house.read(submissions.get_submission, DEFAULT_PROJECT, id)).parts
    kept = [new_name(DEFAULT_PROJECT, part.id), f"{DEFAULT_PROJECT}/res_old.jsonl",
            f"deeper/{DEFAULT_PROJECT}/prt_other.requests.jsonl"]  # fmt: skip
    orphans = [new_name(DEFAULT_PROJECT, f"prt_{n}") for n in range(5)]
    for name in (*kept[1:], *orphans):
        file = tmp_path / "file"
        file.write_bytes(b"{}\n")
        await results_store.put(name, file)
    keep = {"retention_days": 30, "attempt_retention_days": 30}
    janitor = Janitor(house.store, clock=house.clock, results_store=results_store, **keep)

    async def there_after(seconds: float) -> list[str]:
        house.clock.advance(seconds)
        while await janitor.step():
            pass
        return [name for name in (*kept, *orphans) if await is_there(results_store, name)]

    house.clock.now = time.time()
    assert await there_after(ORPHAN_SECONDS - DAY_SECONDS / 2) == [*kept, *orphans]
    assert await there_after(DAY_SECONDS * 3 / 4) == [*kept, *orphans], "it looks once a day"
    assert await there_after(DAY_SECONDS * 3 / 4) == kept


async def is_there(results_store: ResultsStore, name: str) -> bool:
    try:
        return await results_store.size(name) > 0
    except ResultsGone:
        return False
