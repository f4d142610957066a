"""The official OpenAI SDK for Node, with a real server as its `baseURL`."""

from __future__ import annotations

import asyncio
import json

import pytest

from batchbell.sandbox import Receiver, Sandbox
from tests.acceptance.conftest import Shell, receiver, sandbox, shell
from tests.acceptance.test_gateway import INPUT
from tests.verification.judges import NODE, Node

__all__ = ["receiver", "sandbox", "shell"]


@pytest.mark.long
async def test_the_sdk_for_node_uses_the_gateway_as_if_it_were_openai(
    node: Node, shell: Shell, sandbox: Sandbox, receiver: Receiver
) -> None:
    await shell.serve()
    told = {"baseURL": f"{shell.url}/v1", "hook": receiver.url(), "input": INPUT.decode()}
    [line] = await asyncio.to_thread(node.run, NODE / "gateway.mjs", input=json.dumps(told))
    seen = json.loads(line)
    assert seen["retrieved"] == len(INPUT)
    assert seen["content"] == INPUT.decode()
    assert seen["files"] == [seen["file"]]
    assert seen["batches"] == [seen["batch"]]
    assert (seen["status"], seen["cancelled"]) == ("in_progress", "cancelling")
    assert seen["deleted"] is True
    assert seen["refusal"] == {"name": "NotFoundError", "status": 404}
    sandbox.provider.finish(seen["batch"], "cancelled")
    (received,) = await receiver.wait_for(1, timeout=15)
    assert json.loads(received.body)["type"] == "batch.cancelled"
