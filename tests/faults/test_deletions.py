"""SIGKILL while a provider's files are deleted: the results stay whole, the files go in the end."""

from __future__ import annotations

import json

import pytest
from tests.faults.conftest import Town
from tests.faults.test_collections import lines_of_each, ready
from tests.workers.submitting import requests

from batchbell import failpoints

BATCHES = 3
LINES = 12


def made(town: Town) -> list[str]:
    """Batches with files of their own, each."""
    provider = town.sandbox.provider
    content = "\n".join(map(json.dumps, requests(LINES))).encode()
    files = [provider.upload(content, filename="in.jsonl", purpose="batch") for _ in range(BATCHES)]
    wish = {"endpoint": "/v1/responses", "completion_window": "24h"}
    return [provider.create({"input_file_id": file["id"], **wish})["id"] for file in files]


def left_at_the_provider(town: Town) -> int:
    provider = town.sandbox.provider
    page = provider.file_page(purpose=None, after=None, limit=100, newest_first=False)
    return len(page["data"])


def deleted(town: Town) -> int:
    [(number,)] = town.rows("SELECT count(*) FROM deletions WHERE state = 'deleted'")
    return int(number)


@pytest.mark.parametrize(
    "place",
    [
        f"{failpoints.BEFORE_KEEP}:2",
        failpoints.BEFORE_DELETE,
        f"{failpoints.BEFORE_DELETE}:2",
        failpoints.AFTER_DELETE,
        f"{failpoints.AFTER_DELETE}:3",
        f"{failpoints.AFTER_DELETE}:8",
    ],
)
async def test_killed_while_deleting(town: Town, place: str) -> None:
    """Pitfall 21: deletion only after a verified download, and once more is harmless."""
    town.settings["BATCHBELL_DELETE_PROVIDER_FILES"] = "all"
    ids = made(town)
    process = await town.start(failpoint=place)
    await town.register(ids)
    for id in ids:
        town.sandbox.provider.finish(id, "completed", failed=2)
    await process.killed()
    gone = 3 * BATCHES - left_at_the_provider(town)
    assert gone <= 3 * ready(town), "none goes before its results are kept"
    town.let_leases_run_out()
    await town.start()
    await town.until(lambda: deleted(town) == BATCHES)
    assert left_at_the_provider(town) == 0
    assert lines_of_each(town.folder / "results") == [LINES] * BATCHES
    assert set(await town.all_arrived(ids)) == set(ids)
