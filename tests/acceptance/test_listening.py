"""`batchbell listen` and `batchbell trigger`, as a developer behind NAT uses them."""

from __future__ import annotations

import json
import signal
from typing import Any

import httpx2
import pytest
from openai import OpenAI

from batchbell.cli.listen import local_url
from batchbell.sandbox import Receiver, Respond, Sandbox
from tests.acceptance.conftest import API_KEY, Shell
from tests.conftest import SECRET


async def test_what_is_forwarded_verifies_and_a_restart_of_the_server_loses_nothing(
    shell: Shell, sandbox: Sandbox, receiver: Receiver
) -> None:
    serving = await shell.serve()
    listening = await shell.start("listen", "--forward-to", receiver.url("/hook"))
    await listening.says("Listening to")
    secret = (await shell.run("secret")).out.strip()
    assert f"Your webhook signing secret is {secret}\n" in listening.said

    made = [(await shell.run("trigger", "--json")).json["id"]]
    await receiver.wait_for(1, timeout=15)
    await serving.end(signal.SIGKILL)
    await listening.says("The connection is lost")
    await shell.serve()
    made.append((await shell.run("trigger", "batch.expired", "--json")).json["id"])
    batch_id = sandbox.provider.add_batch(total=2)
    await shell.run("watch", batch_id, "--url", receiver.url("/delivered"))
    sandbox.provider.finish(batch_id, "completed")
    hooks = await receiver.wait_for(4, timeout=30)
    await listening.says("Connected again")
    await listening.says(batch_id)
    assert await listening.end(signal.SIGINT) == 0
    assert "3 events forwarded, 0 failed." in listening.said

    forwarded = [hook for hook in hooks if hook.path == "/hook"]
    (delivered,) = [hook for hook in hooks if hook.path == "/delivered"]
    assert [hook.headers["webhook-id"] for hook in forwarded[:2]] == made
    with OpenAI(api_key=API_KEY, webhook_secret=secret) as customer:
        events = [customer.webhooks.unwrap(hook.body, hook.headers) for hook in forwarded]
    assert [event.type for event in events] == [
        "batch.completed",
        "batch.expired",
        "batch.completed",
    ]
    assert bare(forwarded[2].body) == bare(delivered.body), "as an endpoint would get it"
    # Results may be merged between the two: then one tells their size, and is of another length.
    own = {"host", "webhook-timestamp", "webhook-signature", "content-length"}
    assert {k: v for k, v in forwarded[2].headers.items() if k not in own} == {
        k: v for k, v in delivered.headers.items() if k not in own
    }


async def test_a_receiver_that_fails_is_shown_and_called_again_if_that_is_wished(
    shell: Shell, receiver: Receiver
) -> None:
    await shell.serve()
    receiver.behave("/hook", Respond(500), Respond())
    listening = await shell.start(
        "listen", "--forward-to", receiver.url("/hook"), "--retry", "1", "--secret", SECRET
    )
    refused = await shell.start("listen", "--forward-to", "1/hook", "--json")
    moved = await shell.start("listen", "--forward-to", receiver.url("/moved"))
    receiver.behave("/moved", Respond(307, headers={"location": "/hook"}))
    for one in (listening, refused, moved):
        await one.says("Listening to")
    assert SECRET in listening.said
    await shell.run("trigger", "batch.failed")
    await listening.says("→ 200")
    first, again = [hook for hook in await receiver.wait_for(3) if hook.path == "/hook"]
    assert (first.headers["webhook-attempt"], again.headers["webhook-attempt"]) == ("1", "2")
    assert "→ 500" in listening.said
    await refused.says('"result":"failed"')
    await moved.says("not followed")
    for one in (listening, refused, moved):
        assert await one.end(signal.SIGTERM) == 0
    assert "0 events forwarded, 1 failed." in refused.said


async def test_without_a_receiver_events_are_shown_from_a_time_on(shell: Shell) -> None:
    await shell.serve()
    made = (await shell.run("trigger", "batch.lost", "--json")).json
    await shell.run("trigger", "batch.failed")
    listening = await shell.start("listen", "--since", "1h", "--type", "batch.lost", "--json")
    await listening.says(made["id"])
    assert await listening.end(signal.SIGINT) == 0
    assert "batch.failed" not in listening.out.read_text()
    assert "1 events seen." in listening.said


async def test_a_server_that_stops_does_not_wait_for_its_listeners(shell: Shell) -> None:
    serving = await shell.serve()
    async with (
        httpx2.AsyncClient(base_url=shell.url) as client,
        client.stream("GET", "/v1/stream") as answer,
    ):
        lines = answer.aiter_lines()
        assert (await anext(lines)).startswith("retry:")
        assert await serving.end(signal.SIGTERM) == 0
        assert [line async for line in lines if line.startswith("data")] == []
    assert "Cancel" not in serving.said


async def test_a_test_event_for_one_endpoint_is_sent_there(
    shell: Shell, receiver: Receiver
) -> None:
    await shell.serve()
    wanted = ("--url", receiver.url("/one"), "--name", "one")
    made = (await shell.run("endpoints", "create", *wanted, "--json")).json
    ended = await shell.run("trigger", "--endpoint", made["id"], "--json")
    assert (ended.code, ended.json["success"]) == (0, True)
    (hook,) = await receiver.wait_for(1)
    assert hook.path == "/one"
    assert (await shell.run("list", "events")).out == ""


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("listen",), 1, "Is `batchbell serve` running there?"),
        (("listen", "--forward-to", "ftp://x"), 2, "http"),
        (("listen", "--forward-to", "http://10.0.0.1/"), 1, "BATCHBELL_ALLOW_CIDRS"),
        (("trigger",), 1, "Is `batchbell serve` running there?"),
    ],
)
async def test_a_wrong_use_is_one_plain_line(
    shell: Shell, words: tuple[str, ...], code: int, message: str
) -> None:
    ended = await shell.run(*words)
    assert (ended.code, message in ended.err) == (code, True), ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_port_and_a_path_are_a_url_of_this_machine() -> None:
    assert local_url("8000/hook") == "http://localhost:8000/hook"
    assert local_url("localhost:8000/hook") == "http://localhost:8000/hook"
    assert local_url("127.0.0.1:8000") == "http://127.0.0.1:8000"
    assert local_url("https://dev.example/hook") == "https://dev.example/hook"


def bare(body: bytes) -> Any:
    """Without what is known of results only once they are merged, which is now or then."""
    event = json.loads(body)
    if merged := event["data"].get("results"):
        assert merged.keys() >= {"url", "expires_at", "lines", "bytes"}
        merged.update(lines=None, bytes=None)
    return event
