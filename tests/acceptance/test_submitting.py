"""From a file of requests to a file of answers, as a first user does it."""

from __future__ import annotations

import asyncio
import csv
import json
from typing import Any

from pyarrow import parquet

from batchbell.client import AsyncBatchbell
from batchbell.sandbox import Receiver, Sandbox, SandboxProvider
from tests.acceptance.conftest import Shell

ENDPOINT = "/v1/responses"


def requests(number: int) -> list[dict[str, Any]]:
    return [
        {"custom_id": f"r{n}", "body": {"model": "gpt-5-mini", "input": f"question {n}"}}
        for n in range(number)
    ]


async def end_all(provider: SandboxProvider, **how: Any) -> None:
    """Have the batches that come completed, one after the other."""
    ended: set[str] = set()
    while True:
        for row in provider.page(limit=100)[0]:
            if row["id"] not in ended:
                provider.finish(row["id"], "completed", **how)
                ended.add(row["id"])
        await asyncio.sleep(0.05)


async def test_a_file_is_submitted_and_its_results_written(
    shell: Shell, sandbox: Sandbox, receiver: Receiver
) -> None:
    await shell.serve()
    file = shell.folder / "prompts.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in requests(50)))
    ending = asyncio.create_task(end_all(sandbox.provider))
    hook = ("--url", receiver.url(), "--endpoint", ENDPOINT)
    ended = await shell.run("submit", "prompts.jsonl", *hook, "-o", "out.jsonl")
    assert ended.code == 0, ended.err
    assert "50 requests in 1 part" in ended.err
    lines = [json.loads(line) for line in (shell.folder / "out.jsonl").read_bytes().splitlines()]
    assert [line["custom_id"] for line in lines] == [f"r{n}" for n in range(50)]
    await receiver.wait_for(1, timeout=15)
    [event] = [json.loads(hook.body) for hook in receiver.received]
    assert event["data"]["id"] in ended.out
    assert event["data"]["results"]["url"]
    ending.cancel()


async def test_what_is_wrong_is_said_line_by_line(shell: Shell) -> None:
    await shell.serve()
    bad = shell.folder / "bad.jsonl"
    bad.write_text('{"body": {"model": "m"}}\nno json\n[1]\n')
    ended = await shell.run("submit", "bad.jsonl", "--endpoint", ENDPOINT)
    assert ended.code == 1
    assert "line 2: This is no JSON" in ended.err
    assert ended.err.count("This is no JSON") == 1
    bad.write_text("no json\n")
    once = await shell.run("submit", "bad.jsonl", "--endpoint", ENDPOINT)
    assert (once.code, len(once.err.splitlines())) == (1, 1), once.err
    none = await shell.run("submit", "none.jsonl", "--endpoint", ENDPOINT)
    assert none.code == 2
    given = await shell.run("submit", "-", "--json", input='{"url": "/v1/x", "body": {}}')
    assert given.json["status"] == "validating"
    [row] = (await shell.run("list", "submissions", "--json")).json_lines
    assert row["id"] == given.json["id"]
    assert row["id"] in (await shell.run("list", "submissions")).out
    stopped = await shell.run("cancel", row["id"], "--json")
    assert (stopped.code, stopped.json["id"]) == (0, row["id"]), stopped.err


async def test_python_submits_what_it_makes(shell: Shell, sandbox: Sandbox) -> None:
    await shell.serve()
    ending = asyncio.create_task(end_all(sandbox.provider, failed=1))
    async with AsyncBatchbell(shell.url) as bell:
        made = await bell.submit(iter(requests(20)), endpoint=ENDPOINT, retry_missing=1)
        done = await bell.wait(made.id)
        assert done.batchbell.outcome == "partial"
        assert (await bell.submission(made.id)).ended_at is not None
        assert [one.id async for one in bell.submissions()] == [made.id]
        assert len([line async for line in bell.results(made.id)]) == 20
        assert (await bell.cancel_submission(made.id)).cancelled_at is None
    ending.cancel()


async def test_results_are_written_as_the_table_that_the_file_is_named_for(
    shell: Shell, sandbox: Sandbox
) -> None:
    await shell.serve()
    file = shell.folder / "prompts.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in requests(9)))
    ending = asyncio.create_task(end_all(sandbox.provider, failed=2))
    ended = await shell.run(
        "submit", "prompts.jsonl", "--endpoint", ENDPOINT, "--json", "-o", "out.parquet"
    )
    ending.cancel()
    table = parquet.read_table(shell.folder / "out.parquet")
    assert table["custom_id"].to_pylist() == [f"r{n}" for n in range(9)]
    assert table["content"].null_count == 2
    failed = ("results", ended.json["id"], "--status", "failed")
    assert (await shell.run(*failed, "--format", "csv", "-o", "failed.table")).code == 0
    with (shell.folder / "failed.table").open(encoding="utf-8", newline="") as rows:
        assert [row["error_code"] for row in csv.DictReader(rows)] == ["sandbox_failure"] * 2
    assert (await shell.run(*failed, "-o", "failed.jsonl")).code == 0
    assert len((shell.folder / "failed.jsonl").read_bytes().splitlines()) == 2
    refused = await shell.run(*failed, "--format", "csv")
    assert (refused.code, "-o FILE" in refused.err) == (2, True)


async def test_a_script_that_runs_twice_submits_once(shell: Shell) -> None:
    await shell.serve()
    file = shell.folder / "prompts.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in requests(3)))
    words = ("submit", "prompts.jsonl", "--endpoint", ENDPOINT, "--idempotency-key", "night-1")
    first, again = await shell.run(*words, "--json"), await shell.run(*words, "--json")
    assert first.json["id"] == again.json["id"]
    file.write_text(json.dumps(requests(1)[0]) + "\n")
    other = await shell.run(*words)
    assert other.code == 1
    assert "needs a new key" in other.err
