"""A batch of Anthropic's, from its registration to its webhook and its results."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest

from batchbell.sandbox import Receiver, Sandbox
from tests.acceptance.conftest import API_KEY, Shell

HEADERS = {"x-api-key": API_KEY, "anthropic-version": "2023-06-01"}


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    if request.param == "sqlite":
        return {"DATABASE_PATH": str(tmp_path / "batchbell.db")}
    return {"DATABASE_URL": request.getfixturevalue("postgres_url")}


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
async def test_a_batch_is_registered_its_webhook_sent_and_its_results_read(
    shell: Shell, sandbox: Sandbox, receiver: Receiver, database: dict[str, str]
) -> None:
    """Beside an account of OpenAI, which is the default: the id says whose the batch is."""
    keys = {"ANTHROPIC_API_KEY": API_KEY, "ANTHROPIC_BASE_URL": sandbox.url}
    shell.environment |= database | keys
    if "DATABASE_URL" in database:
        del shell.environment["DATABASE_PATH"]
    serving = await shell.serve()
    requests = [
        {
            "custom_id": f"request-{number}",
            "params": {
                "model": "claude-sonnet-5",
                "max_tokens": 100,
                "messages": [{"role": "user", "content": f"Question {number}"}],
            },
        }
        for number in range(4)
    ]
    async with httpx2.AsyncClient(headers=HEADERS) as customer:
        made = await customer.post(
            f"{sandbox.url}/v1/messages/batches", json={"requests": requests}
        )
    id = made.json()["id"]
    answer = await shell.post("/batch-awaiter", {"id": id, "webhookUrl": receiver.url()})
    assert answer.status_code == 201, answer.text
    sandbox.anthropic.finish(id, "cancelled", completed=2, failed=1)
    (received,) = await receiver.wait_for(1, timeout=15)
    body = json.loads(received.body)
    assert (body["batchId"], body["status"]) == (id, "cancelled")
    ended = await shell.run("results", id)
    assert ended.code == 0, ended.err
    lines = {line["custom_id"]: line for line in ended.json_lines}
    assert sorted(lines) == [f"request-{number}" for number in range(4)]
    said = [line["response"] and line["response"]["status_code"] for line in lines.values()]
    assert sorted(said, key=str) == [200, 200, 400, None]
    (skipped,) = [line for line in lines.values() if line["response"] is None]
    assert skipped["error"]["code"] == "batch_cancelled"
    good = [line["response"]["body"] for line in lines.values() if line["response"]]
    assert {one["content"][0]["type"] for one in good if one["type"] == "message"} == {"text"}
    shown = (await shell.run("show", id, "--json")).json
    assert shown["request_counts"] == {"total": 4, "completed": 2, "failed": 1}
    assert await serving.end() == 0
