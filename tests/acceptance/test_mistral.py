"""A batch job of Mistral's, from its registration to its webhook and its results."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest

from batchbell.sandbox import Receiver, Sandbox
from tests.acceptance.conftest import API_KEY, Shell

FILES = (("a", "b"), ("c", "d"))


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    if request.param == "sqlite":
        return {"DATABASE_PATH": str(tmp_path / "batchbell.db")}
    return {"DATABASE_URL": request.getfixturevalue("postgres_url")}


async def created(root: str) -> str:
    """A job of two files."""
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {API_KEY}"}) as customer:
        ids = []
        for names in FILES:
            lines = [
                {"custom_id": n, "body": {"messages": [{"role": "user", "content": f"Say {n}"}]}}
                for n in names
            ]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            answer = await customer.post(
                f"{root}/v1/files",
                data={"purpose": "batch"},
                files={"file": ("in.jsonl", text.encode())},
            )
            ids.append(answer.json()["id"])
        made = await customer.post(
            f"{root}/v1/batch/jobs",
            json={
                "input_files": ids,
                "model": "mistral-small-latest",
                "endpoint": "/v1/chat/completions",
                "metadata": {"job": "nightly"},
            },
        )
    id: str = made.json()["id"]
    return id


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
async def test_a_job_is_registered_its_webhook_sent_and_its_results_read(
    shell: Shell, sandbox: Sandbox, receiver: Receiver, database: dict[str, str]
) -> None:
    """Beside an account of a host that speaks OpenAI's dialect: either may have such an id."""
    keys = {"MISTRAL_API_KEY": API_KEY, "MISTRAL_BASE_URL": sandbox.mistral_url}
    shell.environment |= database | keys
    if "DATABASE_URL" in database:
        del shell.environment["DATABASE_PATH"]
    serving = await shell.serve()
    id = await created(sandbox.mistral_url)
    asked = {"id": id, "webhookUrl": receiver.url()}
    answer = await shell.post("/batch-awaiter", asked)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "ambiguous_account"
    answer = await shell.post("/batch-awaiter", {**asked, "account": "mistral"})
    assert answer.status_code == 201, answer.text
    sandbox.mistral.finish(id, "expired", completed=2, failed=1)
    (received,) = await receiver.wait_for(1, timeout=15)
    body = json.loads(received.body)
    assert (body["batchId"], body["status"]) == (id, "expired")
    ended = await shell.run("results", id)
    assert ended.code == 0, ended.err
    lines = ended.json_lines
    assert [line["custom_id"] for line in lines] == ["a", "b", "c", "d"]
    said = [line["response"] and line["response"]["status_code"] for line in lines]
    assert sorted(said, key=str) == [200, 200, 400, None]
    (skipped,) = [line for line in lines if line["response"] is None]
    assert skipped["error"]["code"] == "batch_expired"
    shown = (await shell.run("show", id, "--json")).json
    assert shown["request_counts"] == {"total": 4, "completed": 2, "failed": 1}
    assert shown["metadata"] == {"job": "nightly"}
    assert shown["batchbell"]["outcome"] == "partial"
    assert shown["batchbell"]["results_expire_at"] is None
    assert await serving.end() == 0
