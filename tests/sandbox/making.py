"""What the sandbox's tests are made of."""

from __future__ import annotations

import json
from typing import Any

from openai import AsyncOpenAI
from openai.types import Batch

KEY = "sk-sandbox-0123456789"


class FakeClock:
    """Stands still until it is told."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def request_line(name: str, **changes: Any) -> str:
    line = {
        "custom_id": name,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Say hello."}]},
    }
    return json.dumps({**line, **changes})


def input_file(requests: int) -> bytes:
    return "\n".join(request_line(f"request-{n}") for n in range(1, requests + 1)).encode()


async def new_batch(client: AsyncOpenAI, content: bytes, **wishes: Any) -> Batch:
    file = await client.files.create(file=("input.jsonl", content), purpose="batch")
    wishes = {"endpoint": "/v1/chat/completions", "completion_window": "24h", **wishes}
    return await client.batches.create(input_file_id=file.id, **wishes)


async def lines_of(client: AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id
    answer = await client.files.content(file_id)
    return [json.loads(line) for line in answer.text.splitlines()]
