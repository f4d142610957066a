"""A provider rings, though the next poll is an hour away."""

from __future__ import annotations

import json
import signal

from batchbell.core import signing
from batchbell.sandbox import Hook, Receiver, Sandbox
from tests.acceptance.conftest import API_KEY, Shell

SECRET = signing.make_secret(b"o" * 24)
OTHER = signing.make_secret(b"n" * 24)


async def test_a_webhook_goes_out_at_once_when_the_provider_rings(
    shell: Shell, sandbox: Sandbox, receiver: Receiver
) -> None:
    """For an account of the environment; and for one that was added, though we are killed."""
    shell.environment |= {
        "BATCHBELL_POLL_INTERVAL_SECONDS": "3600",
        "BATCHBELL_ALLOW_HTTP": "true",
        "BATCHBELL_ALLOW_CIDRS": "127.0.0.0/8",
        "OPENAI_WEBHOOK_SECRET": SECRET,
        "OTHER_SECRET": OTHER,
        "OTHER_KEY": API_KEY,
    }
    serving = await shell.serve()
    keys = ("--api-key-env", "OTHER_KEY", "--hook-secret-env", "OTHER_SECRET")
    added = await shell.run("accounts", "add", "other", "--base-url", sandbox.base_url, *keys)
    assert added.code == 0, added.err
    noted = (await shell.run("doctor", "--json")).json_lines
    assert [one["state"] for one in noted if one["check"] == "hooks"] == ["note", "note"]
    for account, secret in (("openai", SECRET), ("other", OTHER)):
        shown = await shell.run("accounts", "show", account, "--json")
        url = shown.json["hooks"]["url"]
        id = sandbox.provider.add_batch()
        watch = {"id": id, "webhookUrl": receiver.url(f"/{account}"), "account": account}
        assert (await shell.post("/batch-awaiter", watch)).status_code == 201
        await serving.says(id)  # it was seen open
        sandbox.provider.finish(id)
        sandbox.provider.hook = Hook(url, secret)
        assert await sandbox.ring() == [200]
        if account == "other":
            await serving.end(signal.SIGKILL)
            serving = await shell.serve()
        *_, received = await receiver.wait_for(1 if account == "openai" else 2, timeout=30)
        assert json.loads(received.body)["batchId"] == id
    shown = await shell.run("accounts", "show", "other")
    assert f"hooks      {url}" in shown.out
    assert "announced  1 end in a row" in shown.out
    forgot = await shell.run("accounts", "update", "other", "--no-hook-secret")
    assert "none: no secret" in forgot.out
    sandbox.provider.finish(sandbox.provider.add_batch())
    assert await sandbox.ring() == [404]
    given = await shell.run("accounts", "update", "other", "--new-hook-secret", input=OTHER)
    assert given.code == 0, given.err
    assert await sandbox.ring() == [200]
    assert await serving.end() == 0
