"""`batchbell serve` from the first start over every kind of end."""

from __future__ import annotations

import signal
import socket

import pytest
from openai import OpenAI

from batchbell.sandbox import Receiver, Sandbox
from tests.acceptance.conftest import API_KEY, Shell


async def test_three_settings_are_enough_from_registration_to_a_signed_webhook(
    shell: Shell, sandbox: Sandbox, receiver: Receiver
) -> None:
    serving = await shell.serve()
    batch_id = sandbox.provider.add_batch(total=10)
    answer = await shell.post("/batch-awaiter", {"id": batch_id, "webhookUrl": receiver.url()})
    assert answer.status_code == 201
    assert answer.json()["batchId"] == batch_id
    sandbox.provider.finish(batch_id, "completed", failed=2)
    (received,) = await receiver.wait_for(1, timeout=15)
    secret = (await shell.run("secret")).out.strip()
    with OpenAI(api_key=API_KEY, webhook_secret=secret) as customer:
        event = customer.webhooks.unwrap(received.body, received.headers)
    assert event.type == "batch.completed"
    assert event.data.id == batch_id
    assert await serving.end(signal.SIGTERM) == 0
    assert f"Batchbell serves {shell.url}" in serving.said
    assert f"Watching openai at {sandbox.base_url}, every 0.2 s." in serving.said
    assert "Local mode" in serving.said


async def test_a_killed_server_goes_on_where_it_was(
    shell: Shell, sandbox: Sandbox, receiver: Receiver
) -> None:
    serving = await shell.serve()
    secret = await shell.run("secret")
    batch_id = sandbox.provider.add_batch()
    await shell.post("/batch-awaiter", {"id": batch_id, "webhookUrl": receiver.url()})
    await serving.end(signal.SIGKILL)
    sandbox.provider.finish(batch_id, "completed")
    assert (await shell.run("secret")).out == secret.out, "also without a server"
    again = await shell.serve()
    (received,) = await receiver.wait_for(1, timeout=15)
    assert batch_id.encode() in received.body
    assert (await shell.run("secret")).out == secret.out
    assert await again.end(signal.SIGINT) == 0


async def test_a_second_server_on_the_same_file_is_refused(shell: Shell) -> None:
    await shell.serve()
    ended = await shell.run("serve", PORT="0")
    assert ended.code == 1
    assert ended.err.startswith("batchbell: error: ")
    assert "Another Batchbell process is using" in ended.err


async def test_a_port_that_is_taken_is_said_so(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = await shell.run("serve", "--port", str(taken.getsockname()[1]))
    assert ended.code == 2
    assert "Cannot listen on 127.0.0.1:" in ended.err


async def test_without_a_key_only_loopback_is_served(shell: Shell) -> None:
    ended = await shell.run("serve", HOST="0.0.0.0")
    assert ended.code == 2
    assert "batchbell keys create" in ended.err


async def test_with_a_key_the_world_is_served_and_everybody_needs_one(shell: Shell) -> None:
    made = await shell.run("keys", "create", "--name", "ops")
    key = made.out.strip()
    assert key.startswith("bb_")
    await shell.serve(HOST="0.0.0.0")
    refused = await shell.post("/v1/watches", {"batch_id": "batch_1", "url": "https://a.example"})
    assert refused.status_code == 401

    without = await shell.run("keys", "list")
    assert without.code == 1
    assert "Set BATCHBELL_API_KEY" in without.err
    listed = await shell.run("keys", "list", "--json", BATCHBELL_API_KEY=key)
    (one,) = listed.json_lines
    assert one["name"] == "ops"
    assert key not in listed.out
    asked = await shell.run("keys", "revoke", one["id"], BATCHBELL_API_KEY=key)
    assert asked.code == 2
    assert "the last key" in asked.err
    revoked = await shell.run("keys", "revoke", one["id"], "--yes", BATCHBELL_API_KEY=key)
    assert revoked.code == 0, revoked.err
    doctor = await shell.run("doctor")
    assert doctor.code == 1
    again = await shell.run("keys", "create", "--name", "again")
    assert "stop the server" in again.err


async def test_keys_that_are_made_beside_a_local_server_count_at_once(shell: Shell) -> None:
    await shell.serve()
    made = await shell.run("keys", "create", "--name", "first", "--json")
    assert (await shell.run("list")).code == 1
    listed = await shell.run("list", "--api-key", made.json["key"])
    assert listed.code == 0, listed.err


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"PORT": "many"}, "PORT"),
        ({"DATABASE_URL": "mysql://x/y"}, "use sqlite or postgresql"),
        ({"BATCHBELL_CONFIG": "/nowhere.toml"}, "cannot be read"),
    ],
)
async def test_a_wrong_setting_is_one_plain_line(
    shell: Shell, environment: dict[str, str], says: str
) -> None:
    ended = await shell.run("serve", **environment)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert line.startswith("batchbell: error: ")
    assert says in line


async def test_a_server_without_an_account_says_what_to_set(shell: Shell) -> None:
    serving = await shell.serve("--no-workers", OPENAI_API_KEY="")
    await serving.says("Nothing is watched: set OPENAI_API_KEY")
    await serving.says("`batchbell worker`")


async def test_a_worker_beside_sqlite_is_refused(shell: Shell) -> None:
    ended = await shell.run("worker")
    assert ended.code == 2
    assert "postgresql://" in ended.err


async def test_migrate_makes_the_database(shell: Shell) -> None:
    first, again = await shell.run("migrate", "--json"), await shell.run("migrate", "--json")
    assert first.code == 0, first.err
    assert first.json == again.json
    assert (shell.folder / "batchbell.db").exists()
