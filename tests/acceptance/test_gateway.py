"""The gateway as its users have it: the official SDK, one line changed, against a real server."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
from openai import AsyncOpenAI, OpenAI

from batchbell.sandbox import Receiver, Sandbox
from tests.acceptance.conftest import API_KEY, Process, Shell

LINE = {
    "custom_id": "one",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi"}]},
}
INPUT = json.dumps(LINE).encode() + b"\n"
MIB = 2**20
LARGE_MIB = 200
MEMORY_MIB_MAX = 40
"""What a server may grow by while that passes through it."""


def run_a_batch(url: str, hook: str) -> str:
    """Code that anybody may have, but for `base_url`."""
    with OpenAI(base_url=f"{url}/v1", api_key="bb_any") as client:
        file = client.files.create(file=("in.jsonl", INPUT), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"webhook_url": hook},
        )
        return batch.id


async def test_one_line_is_changed_from_the_upload_to_the_results(
    shell: Shell, sandbox: Sandbox, receiver: Receiver
) -> None:
    await shell.serve()
    secret = (await shell.run("secret")).out.strip()
    batch_id = await asyncio.to_thread(run_a_batch, shell.url, receiver.url())
    sandbox.provider.finish(batch_id, "completed")
    (received,) = await receiver.wait_for(1, timeout=15)
    async with AsyncOpenAI(
        base_url=f"{shell.url}/v1", api_key="bb_any", webhook_secret=secret
    ) as client:
        event = client.webhooks.unwrap(received.body, received.headers)
        assert (event.type, event.data.id) == ("batch.completed", batch_id)
        batch = await client.batches.retrieve(batch_id)
        assert batch.output_file_id is not None
        content = await client.files.content(batch.output_file_id)
    assert json.loads(content.text)["custom_id"] == "one"


async def test_a_batch_made_at_the_provider_is_found(
    shell: Shell, sandbox: Sandbox, receiver: Receiver
) -> None:
    await shell.serve(BATCHBELL_DISCOVER="true")
    async with AsyncOpenAI(base_url=sandbox.base_url, api_key=API_KEY) as provider:
        file = await provider.files.create(file=("in.jsonl", INPUT), purpose="batch")
        batch = await provider.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"webhook_url": receiver.url()},
        )
    sandbox.provider.finish(batch.id, "completed")
    (received,) = await receiver.wait_for(1, timeout=15)
    assert batch.id.encode() in received.body
    assert "every batch" in (await shell.run("accounts", "show", "openai")).out


async def test_an_account_that_was_added_is_told_to_discover(
    shell: Shell, sandbox: Sandbox
) -> None:
    await shell.serve()
    words = ("accounts", "add", "second", "--base-url", sandbox.base_url, "--discover", "--json")
    added = await shell.run(*words, input=API_KEY)
    assert added.json["discover"] is True
    changed = await shell.run("accounts", "update", "second", "--no-discover", "--json")
    assert changed.json["discover"] is False
    refused = await shell.run("accounts", "update", "openai", "--discover")
    assert (refused.code, "environment" in refused.err) == (1, True)


async def test_an_account_that_is_called_after_a_provider_is_its_and_is_tried_at_once(
    shell: Shell, sandbox: Sandbox
) -> None:
    await shell.serve()
    address = ("--base-url", sandbox.url)
    added = await shell.run("accounts", "add", "anthropic", *address, input=API_KEY)
    assert added.code == 0, added.err
    assert "anthropic answers, in" in added.err
    shown = await shell.run("accounts", "show", "anthropic", "--json")
    assert shown.json["provider"] == "anthropic"
    words = ("accounts", "add", "other", "--provider", "anthropic", *address)
    wrong = await shell.run(*words, input="sk-wrong-0123456789")
    assert wrong.code == 1
    assert "other was added, but does not answer as it should (auth)" in wrong.err
    unknown = await shell.run("accounts", "add", "x", "--provider", "antropic", input=API_KEY)
    assert (unknown.code, "anthropic" in unknown.err) == (1, True), unknown.err


async def multipart(boundary: str, number: int) -> AsyncIterator[bytes]:
    """An upload of so many MiB, made as it goes."""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    file = 'Content-Disposition: form-data; name="file"; filename="in.jsonl"'
    yield f"{head}--{boundary}\r\n{file}\r\n\r\n".encode()
    for chunk in itertools.repeat(b"x" * (MIB - 1) + b"\n", number):
        yield chunk
    yield f"\r\n--{boundary}--\r\n".encode()


def memory_mib(serving: Process, what: str) -> int:
    status = Path(f"/proc/{serving.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith(f"{what}:")]
    return int(line.split()[1]) // 1024


async def test_a_large_file_passes_through_and_none_of_it_stays(
    shell: Shell, sandbox: Sandbox
) -> None:
    serving = await shell.serve()
    async with httpx2.AsyncClient(base_url=shell.url, timeout=100) as http:
        await http.get("/v1/files")
        before = memory_mib(serving, "VmRSS")
        made = await http.post(
            "/v1/files",
            content=multipart("edge", LARGE_MIB),
            headers={"content-type": "multipart/form-data; boundary=edge"},
        )
        assert made.json()["bytes"] == LARGE_MIB * MIB
        size = 0
        async with http.stream("GET", f"/v1/files/{made.json()['id']}/content") as answer:
            async for chunk in answer.aiter_raw():
                size += len(chunk)
    assert size == LARGE_MIB * MIB
    assert memory_mib(serving, "VmHWM") - before < MEMORY_MIB_MAX
