"""A batch of the Gemini API, from its registration to its webhook and its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from batchbell.sandbox import Receiver, Sandbox
from tests.acceptance.conftest import API_KEY, Shell

HEADERS = {"x-goog-api-key": API_KEY}
MODEL = "gemini-3.5-flash"
REQUESTS = [
    {"contents": [{"parts": [{"text": f"Question {number}"}], "role": "user"}]}
    for number in range(4)
]


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    if request.param == "sqlite":
        return {"DATABASE_PATH": str(tmp_path / "batchbell.db")}
    return {"DATABASE_URL": request.getfixturevalue("postgres_url")}


async def uploaded(customer: httpx2.AsyncClient, root: str) -> str:
    """The name of a file with the requests."""
    lines = [{"key": f"request-{n}", "request": one} for n, one in enumerate(REQUESTS)]
    start = {"X-Goog-Upload-Protocol": "resumable", "X-Goog-Upload-Command": "start"}
    begun = await customer.post(
        f"{root}/upload/v1beta/files", json={"file": {"displayName": "in"}}, headers=start
    )
    ended = await customer.post(
        begun.headers["x-goog-upload-url"],
        content="".join(json.dumps(line) + "\n" for line in lines),
        headers={"X-Goog-Upload-Command": "upload, finalize", "X-Goog-Upload-Offset": "0"},
    )
    name: str = ended.json()["file"]["name"]
    return name


async def created(root: str, *, by_file: bool) -> str:
    async with httpx2.AsyncClient(headers=HEADERS) as customer:
        config: dict[str, Any]
        if by_file:
            config = {"fileName": await uploaded(customer, root)}
        else:
            rows = [
                {"request": one, "metadata": {"key": f"request-{n}"}}
                for n, one in enumerate(REQUESTS)
            ]
            config = {"requests": {"requests": rows}}
        made = await customer.post(
            f"{root}/v1beta/models/{MODEL}:batchGenerateContent",
            json={"batch": {"displayName": "nightly", "inputConfig": config}},
        )
    name: str = made.json()["name"]
    return name


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
async def test_batches_are_registered_their_webhooks_sent_and_their_results_read(
    shell: Shell, sandbox: Sandbox, receiver: Receiver, database: dict[str, str]
) -> None:
    """Beside an account of OpenAI, which is the default: the id says whose the batch is."""
    keys = {"GEMINI_API_KEY": API_KEY, "GOOGLE_GEMINI_BASE_URL": sandbox.gemini_url}
    shell.environment |= database | keys
    if "DATABASE_URL" in database:
        del shell.environment["DATABASE_PATH"]
    serving = await shell.serve()
    ids = [await created(sandbox.gemini_url, by_file=by_file) for by_file in (True, False)]
    for id in ids:
        assert id.startswith("batches/")
        answer = await shell.post("/batch-awaiter", {"id": id, "webhookUrl": receiver.url()})
        assert answer.status_code == 201, answer.text
        sandbox.gemini.finish(id, "completed", failed=1)
    bodies = [json.loads(one.body) for one in await receiver.wait_for(2, timeout=15)]
    assert {body["batchId"] for body in bodies} == set(ids)
    assert {body["status"] for body in bodies} == {"completed"}
    for id in ids:
        ended = await shell.run("results", id)
        assert ended.code == 0, ended.err
        lines = ended.json_lines
        assert [line["custom_id"] for line in lines] == [f"request-{n}" for n in range(4)]
        statuses = [line["response"]["status_code"] for line in lines]
        assert sorted(statuses) == [200, 200, 200, 400]
        texts = [
            line["response"]["body"]["candidates"][0]["content"]["parts"][0]["text"]
            for line in lines
            if line["response"]["status_code"] == 200
        ]
        assert {text.partition(": Question")[0] for text in texts} == {"The sandbox heard"}
        shown = (await shell.run("show", id, "--json")).json
        assert shown["request_counts"] == {"total": 4, "completed": 3, "failed": 1}
        assert shown["metadata"] == {"display_name": "nightly"}
        assert shown["batchbell"]["outcome"] == "partial"
        assert shown["batchbell"]["results"]["in_input_order"] is True
        expire_at = shown["batchbell"]["results_expire_at"]
        assert expire_at == shown["completed_at"] + 48 * 3600
    assert sandbox.gemini.calls["content"] == 1, "the input is not asked for"
    assert await serving.end() == 0
