"""Batches of hosts that speak OpenAI's dialect, from registration or submission to results."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from batchbell.sandbox import Receiver, Sandbox, SandboxProvider
from tests.acceptance.conftest import API_KEY, Shell
from tests.acceptance.test_submitting import end_all


@dataclass(frozen=True)
class Host:
    """A host, the sandbox that plays it, and what points Batchbell there."""

    name: str
    key: str
    address: str
    url_of: Callable[[Sandbox], str]
    state_of: Callable[[Sandbox], SandboxProvider]


GROQ = Host("groq", "GROQ_API_KEY", "GROQ_BASE_URL", lambda s: s.groq_url, lambda s: s.groq)
AZURE = Host(
    "azure",
    "AZURE_OPENAI_API_KEY",
    "AZURE_OPENAI_ENDPOINT",
    lambda s: s.azure_url,
    lambda s: s.azure,
)

BODY = {"model": "my-model", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    if request.param == "sqlite":
        return {"DATABASE_PATH": str(tmp_path / "batchbell.db")}
    return {"DATABASE_URL": request.getfixturevalue("postgres_url")}


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("host", [GROQ, AZURE], ids=lambda host: host.name)
async def test_a_batch_is_watched_and_a_submission_made(
    shell: Shell,
    sandbox: Sandbox,
    receiver: Receiver,
    database: dict[str, str],
    host: Host,
) -> None:
    """The address is given as to the host's own SDK. Azure's results are in its customer's blobs.

    Beside an account of OpenAI, which is the default: ids do not say whose a batch is.
    """
    shell.environment |= database | {host.key: API_KEY, host.address: host.url_of(sandbox)}
    if "DATABASE_URL" in database:
        del shell.environment["DATABASE_PATH"]
    sandbox.azure.blobs = "localhost"
    state = host.state_of(sandbox)
    serving = await shell.serve()
    id = state.add_batch(total=4)
    watch = {"id": id, "webhookUrl": receiver.url(), "account": host.name}
    answer = await shell.post("/batch-awaiter", watch)
    assert answer.status_code == 201, answer.text
    state.finish(id, "cancelled", completed=2, failed=1)
    (received,) = await receiver.wait_for(1, timeout=15)
    body = json.loads(received.body)
    assert (body["batchId"], body["status"]) == (id, "cancelled")
    ended = await shell.run("results", id)
    assert ended.code == 0, ended.err
    said = [line["response"] and line["response"]["status_code"] for line in ended.json_lines]
    assert sorted(said, key=str) == [200, 200, 400, None]
    (shell.folder / "prompts.jsonl").write_text(
        "".join(json.dumps({"custom_id": f"r{n}", "body": BODY}) + "\n" for n in range(3))
    )
    ending = asyncio.create_task(end_all(state))
    words = ("prompts.jsonl", "--endpoint", "/v1/chat/completions", "--account", host.name)
    handed = await shell.run("submit", *words, "-o", "out.jsonl")
    ending.cancel()
    assert handed.code == 0, handed.err
    lines = (shell.folder / "out.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["custom_id"] for line in lines] == ["r0", "r1", "r2"]
    assert await serving.end() == 0
