"""SIGKILL at every step of a submission: no part is missing, and none is handed in twice."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.conftest import SECRET
from tests.faults.conftest import SERVE, Town
from tests.own_forms import OWN_FORMS
from tests.workers.submitting import hand_over, requests

from batchbell import failpoints
from batchbell.core.model import DEFAULT_PROJECT
from batchbell.core.submission import TAG
from batchbell.files.results_store import Folder
from batchbell.runtime import mint
from batchbell.storage.accounts import ensure_account
from batchbell.storage.opening import open_store
from batchbell.storage.projects import ensure_project

PARTS = 5
REQUESTS = 18
"""Four in a part."""
PATIENCE_SECONDS = 60.0

PLACES = [
    failpoints.AFTER_INTENT,
    failpoints.AFTER_UPLOAD,
    failpoints.AFTER_FILE,
    failpoints.AFTER_CREATE,
    failpoints.AFTER_HAND_IN,
]


async def handed_over(town: Town, folder: Path) -> str:
    """A submission of five parts that nobody has begun with."""
    results = folder / "results"
    town.settings["BATCHBELL_RESULTS_URL"] = str(results)
    store = await open_store(town.database_url)
    now = time.time()
    await store.write(ensure_project, id=DEFAULT_PROJECT, secret=SECRET, now=now)
    account = await store.write(
        ensure_account,
        project_id=DEFAULT_PROJECT,
        name="openai",
        provider="openai",
        base_url=town.sandbox.base_url,
        mint=mint,
        now=now,
    )
    id = await hand_over(
        store,
        Folder(results),
        account.id,
        REQUESTS,
        folder=folder / "parts",
        url=town.receiver.url("/hook"),
        mint=mint,
        now=now,
    )
    await store.close()
    return id


def at_the_provider(town: Town) -> list[dict[str, Any]]:
    rows, _ = town.sandbox.provider.page(limit=1000)
    return [row for row in rows if TAG in (row["metadata"] or {})]


async def all_running(town: Town, id: str) -> dict[str, Any]:
    """Wait until every part is at the provider."""
    async with asyncio.timeout(PATIENCE_SECONDS), httpx2.AsyncClient() as client:
        while True:
            found: dict[str, Any] = (await client.get(f"{town.url}/v1/submissions/{id}")).json()
            if all(part["state"] == "running" for part in found["parts"]):
                return found
            await asyncio.sleep(0.05)


async def proven(town: Town, id: str, *, parts: int = PARTS) -> None:
    """That so many batches were made, and come back as one."""
    found = await all_running(town, id)
    made = at_the_provider(town)
    tags = Counter(row["metadata"][TAG] for row in made)
    assert len(made) == parts, "no part is missing, and none was handed in twice"
    assert set(tags.values()) == {1}
    assert {part["batch_id"] for part in found["parts"]} == {row["id"] for row in made}
    for row in made:
        town.sandbox.provider.finish(row["id"], "completed")
    assert await town.all_arrived([id]) == {id: 1}
    [event] = [json.loads(hook.body) for hook in town.receiver.received]
    counts = {"total": REQUESTS, "completed": REQUESTS, "failed": 0}
    assert event["data"]["request_counts"] == counts
    async with httpx2.AsyncClient(timeout=PATIENCE_SECONDS) as client:
        answer = await client.get(event["data"]["results"]["url"])
    ids = [json.loads(line)["custom_id"] for line in answer.content.splitlines()]
    assert ids == [f"r{n}" for n in range(REQUESTS)]


@pytest.mark.parametrize("place", [*PLACES, f"{failpoints.AFTER_CREATE}:3"])
async def test_killed_while_handing_in(town: Town, tmp_path: Path, place: str) -> None:
    id = await handed_over(town, tmp_path)
    process = await town.start(SERVE, failpoint=place)
    await process.killed()
    town.let_leases_run_out()
    await town.start()
    await proven(town, id)


@pytest.mark.parametrize("place", [failpoints.BEFORE_FINISH])
async def test_killed_before_the_end_is_written(town: Town, tmp_path: Path, place: str) -> None:
    id = await handed_over(town, tmp_path)
    process = await town.start(SERVE, failpoint=place)
    await process.killed()
    town.let_leases_run_out()
    await town.start()
    await proven(town, id)


async def test_killed_at_one_step_after_the_other(town: Town, tmp_path: Path) -> None:
    id = await handed_over(town, tmp_path)
    for place in PLACES:
        process = await town.start(SERVE, failpoint=place)
        await process.killed()
        town.let_leases_run_out()
    await town.start()
    await proven(town, id)


@pytest.mark.parametrize("place", [failpoints.BEFORE_ANSWER])
async def test_killed_between_the_commit_and_the_answer(town: Town, place: str) -> None:
    """Whoever called has no answer, calls again with the same key, and pays once."""
    body = b"".join(json.dumps(one).encode() + b"\n" for one in requests(REQUESTS))
    wish = {"webhook_url": town.receiver.url("/hook")}
    headers = {"content-type": "application/jsonl", "Idempotency-Key": "night-1"}

    async def hand_in() -> httpx2.Response:
        async with httpx2.AsyncClient(base_url=town.url, timeout=PATIENCE_SECONDS) as client:
            return await client.post("/v1/submissions", params=wish, content=body, headers=headers)

    process = await town.start(SERVE, failpoint=place)
    with pytest.raises(httpx2.TransportError):
        await hand_in()
    await process.killed()
    town.let_leases_run_out()
    await town.start()
    again = await hand_in()
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    id = again.json()["id"]
    assert [one["id"] for one in (await town.ask("GET", "/v1/submissions"))["data"]] == [id]
    await proven(town, id, parts=1)


@pytest.mark.parametrize("provider", OWN_FORMS)
async def test_lines_of_every_dialect_are_answered_once(town: Town, provider: str) -> None:
    """Killed when the batch was made, and its answer not noted. One request fails at first."""
    own = OWN_FORMS[provider]
    town.settings |= own.variables(town.sandbox)
    played = own.played(town.sandbox)
    wanted = {"account": provider, "url": town.receiver.url("/hook"), "retry_missing": "1"}
    body = b"".join(json.dumps(own.line(number)).encode() + b"\n" for number in range(3))
    process = await town.start(SERVE, failpoint=failpoints.AFTER_CREATE)
    async with httpx2.AsyncClient(base_url=town.url, timeout=PATIENCE_SECONDS) as client:
        answer = await client.post(
            "/v1/submissions",
            params=wanted | dict(own.options),
            content=body,
            headers={"content-type": "application/jsonl"},
        )
    assert answer.status_code == 201, answer.text
    id = answer.json()["id"]
    await process.killed()
    town.let_leases_run_out()
    await town.start()
    [part] = (await all_running(town, id))["parts"]
    [row] = played.page(limit=100)[0]
    assert row[own.id_field] == part["batch_id"]
    played.finish(part["batch_id"], "expired", completed=2)
    again = await next_part(town, id, 2)
    played.finish(again["batch_id"], "completed")
    assert await town.all_arrived([id]) == {id: 1}
    [event] = [json.loads(hook.body) for hook in town.receiver.received]
    assert event["data"]["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
    async with httpx2.AsyncClient(timeout=PATIENCE_SECONDS) as client:
        answer = await client.get(event["data"]["results"]["url"])
    lines = [json.loads(line) for line in answer.content.splitlines()]
    assert [line["custom_id"] for line in lines] == ["r0", "r1", "r2"]
    assert {line["response"]["status_code"] for line in lines} == {200}


async def next_part(town: Town, id: str, number: int) -> dict[str, Any]:
    """Wait until a submission has so many parts, and the last one runs."""
    async with asyncio.timeout(PATIENCE_SECONDS), httpx2.AsyncClient() as client:
        while True:
            found: dict[str, Any] = (await client.get(f"{town.url}/v1/submissions/{id}")).json()
            parts: list[dict[str, Any]] = found["parts"]
            if len(parts) == number and parts[-1]["state"] == "running":
                return parts[-1]
            await asyncio.sleep(0.05)
