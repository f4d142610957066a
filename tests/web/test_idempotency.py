"""Submissions that are handed in again under the same key: made once, and answered each time."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from batchbell.files.results_store import Folder
from batchbell.storage import retention

from .making import HOOK, Served, a_snapshot
from .test_keys import bearer
from .test_submissions import jsonl, line

JSONL = {"content-type": "application/jsonl"}


async def submit(served: Served, key: str, body: bytes = jsonl(line(1)), **query: str) -> Any:
    headers = {**JSONL, "Idempotency-Key": key}
    return await served.http.post("/v1/submissions", params=query, content=body, headers=headers)


async def made(served: Served) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await served.http.get("/v1/submissions")).json()["data"]
    return found


def files_of(served: Served) -> list[Path]:
    """What lies on the shelf."""
    assert isinstance(served.context.results_store, Folder)
    return [file for file in served.context.results_store.root.rglob("*") if file.is_file()]


async def test_the_same_again_is_the_same_submission(served: Served) -> None:
    first = await submit(served, "night-1", webhook_url=HOOK)
    again = await submit(served, "night-1", webhook_url=HOOK)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert [one["id"] for one in await made(served)] == [first.json()["id"]]
    assert len(files_of(served)) == 1
    assert len((await served.http.get("/v1/batches")).json()["data"]) == 1
    assert len((await served.http.get("/v1/watches")).json()["data"]) == 1


async def test_it_is_told_as_it_is_by_then(served: Served) -> None:
    first = (await submit(served, "night-1")).json()
    await served.http.post(f"/v1/submissions/{first['id']}/cancel")
    assert (await submit(served, "night-1")).json()["cancelled_at"] is not None


async def test_the_form_of_the_body_makes_no_difference(served: Served) -> None:
    wishes = {"webhook_url": HOOK, "metadata": '{"a": "b", "c": "d"}', "retry_missing": "2"}
    lines = b"".join(json.dumps(line(n), separators=(",", ":")).encode() + b"\n" for n in (1, 2))
    first = await submit(served, "k", lines, **wishes)
    file = {"file": ("in.jsonl", lines, "application/jsonl")}
    key = {"Idempotency-Key": "k"}
    form = await served.http.post("/v1/submissions", data=wishes, files=file, headers=key)
    body = {
        "requests": [line(1), line(2)],
        "retry_missing": 2,
        "metadata": {"c": "d", "a": "b"},
        "webhook_url": HOOK,
        "account": None,
    }
    plain = await served.http.post("/v1/submissions", json=body, headers=key)
    assert {one.json()["id"] for one in (first, form, plain)} == {first.json()["id"]}


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("body", "query"),
    [
        (jsonl(line(2)), {}),
        (jsonl(line(1)) + b"\n", {}),
        (jsonl(line(1)), {"retry_missing": "1"}),
        (jsonl(line(1)), {"webhook_url": HOOK}),
        (jsonl(line(1)), {"account": "openai"}),
    ],
)
async def test_something_else_under_the_same_key_is_refused(
    served: Served, body: bytes, query: dict[str, str]
) -> None:
    first = (await submit(served, "night-1")).json()
    answer = await submit(served, "night-1", body, **query)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (409, "idempotency_key_reused")
    assert error["param"] == "Idempotency-Key"
    assert first["id"] in error["message"]
    assert "needs a new key" in error["message"]
    assert [one["id"] for one in await made(served)] == [first["id"]]
    assert len(files_of(served)) == 1


async def test_calls_that_race_make_one(served: Served) -> None:
    answers = await asyncio.gather(*(submit(served, "race", webhook_url=HOOK) for _ in range(8)))
    assert {one.status_code for one in answers} == {201}
    assert len({one.json()["id"] for one in answers}) == 1
    assert sum("idempotent-replayed" not in one.headers for one in answers) == 1
    assert len(await made(served)) == 1
    assert len(files_of(served)) == 1, "the others have cleaned up behind themselves"
    assert len((await served.http.get("/v1/batches")).json()["data"]) == 1


async def test_different_calls_that_race_for_a_key_make_one(served: Served) -> None:
    bodies = [jsonl(line(n)) for n in range(6)]
    answers = await asyncio.gather(*(submit(served, "race", body) for body in bodies))
    assert sorted(one.status_code for one in answers) == [201, *[409] * 5]
    assert len(await made(served)) == 1
    assert len(files_of(served)) == 1


async def test_what_could_not_be_taken_leaves_the_key_free(served: Served) -> None:
    bad = await submit(served, "night-1", b"no json\n")
    assert bad.status_code == 422
    nobody = await submit(served, "night-1", endpoint_id="we_none")
    assert nobody.status_code == 400
    assert files_of(served) == []
    good = await submit(served, "night-1")
    assert (good.status_code, "idempotent-replayed" in good.headers) == (201, False)


async def test_without_a_key_each_call_is_its_own(served: Served) -> None:
    for _ in range(2):
        await served.http.post("/v1/submissions", content=jsonl(line(1)), headers=JSONL)
    assert len(await made(served)) == 2


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("word", ["", "two words", "k" * 256, "schlüssel", "tab\tbed"])
async def test_a_key_that_is_none_is_refused_before_the_body_is_read(
    served: Served, word: str
) -> None:
    headers = [(b"Idempotency-Key", word.encode()), (b"content-type", b"application/jsonl")]
    answer = await served.http.post("/v1/submissions", content=b"no json", headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "Idempotency-Key")
    assert "1 to 255 visible ASCII characters" in error["message"]


async def test_two_keys_are_refused_and_the_longest_one_is_taken(served: Served) -> None:
    two = [("Idempotency-Key", "a"), ("Idempotency-Key", "b"), *JSONL.items()]
    answer = await served.http.post("/v1/submissions", content=jsonl(line(1)), headers=two)
    assert answer.status_code == 400
    assert (await submit(served, "k" * 255)).status_code == 201


async def test_a_key_is_the_projects_own(served: Served) -> None:
    made = (await served.http.post("/v1/keys", json={"name": "ops"})).json()
    operator = bearer(made["key"])
    ids = set()
    for name in ("blue", "green"):
        project = (
            await served.http.post("/v1/projects", json={"name": name}, headers=operator)
        ).json()
        wanted = {"name": name, "project_id": project["id"]}
        key = (await served.http.post("/v1/keys", json=wanted, headers=operator)).json()["key"]
        account = {"name": name, "provider": "openai", "api_key": "sk-x-0123456789"}
        account["base_url"] = "http://127.0.0.1:9/v1"
        await served.http.post("/v1/accounts", json=account, headers=bearer(key))
        headers = {**JSONL, "Idempotency-Key": "night-1", **bearer(key)}
        answer = await served.http.post("/v1/submissions", content=jsonl(line(1)), headers=headers)
        assert "idempotent-replayed" not in answer.headers
        ids.add(answer.json()["id"])
    assert len(ids) == 2


async def test_after_an_expunge_the_key_is_used_up_and_nothing_tells_of_the_content(
    served: Served,
) -> None:
    first = (await submit(served, "night-1")).json()
    await served.see(a_snapshot(first["id"]))
    expunged = await served.http.post(f"/v1/batches/{first['id']}/expunge")
    assert expunged.status_code == 200, expunged.text
    answer = await submit(served, "night-1")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (409, "idempotency_key_reused")
    assert "expunged" in error["message"]


async def test_the_key_is_forgotten_with_its_submission(served: Served) -> None:
    first = (await submit(served, "night-1")).json()
    await served.see(a_snapshot(first["id"]))
    later = served.context.clock() + 1
    await served.context.store.write(retention.forget_batches, before=later, limit=10)
    anew = await submit(served, "night-1")
    assert (anew.status_code, "idempotent-replayed" in anew.headers) == (201, False)
    assert anew.json()["id"] != first["id"]


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("depth", range(990, 1002))
async def test_wishes_that_are_nested_as_deeply_as_can_be_read_are_refused(
    served: Served, depth: int
) -> None:
    nested = b"[" * depth + b"]" * depth
    body = b'{"requests": [' + json.dumps(line(1)).encode() + b'], "metadata": ' + nested + b"}"
    headers = {"content-type": "application/json", "Idempotency-Key": "deep"}
    refused = await served.http.post("/v1/submissions", content=body, headers=headers)
    assert refused.status_code == 400
