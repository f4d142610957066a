"""`batchbell replay`, as somebody would type it."""

from __future__ import annotations

import pytest
import typer

from batchbell.cli.replays import moment_of
from batchbell.sandbox import Receiver, Respond, Sandbox
from tests.acceptance.conftest import Shell


async def test_what_is_held_is_counted_and_sent_again(
    shell: Shell, sandbox: Sandbox, receiver: Receiver
) -> None:
    await shell.serve()
    batch_id = sandbox.provider.add_batch(total=4)
    receiver.behave("/hook", Respond(410), Respond(), Respond())
    await shell.run("watch", batch_id, "--url", receiver.url())
    sandbox.provider.finish(batch_id, "completed")
    await receiver.wait_for(1, timeout=15)
    while not (await shell.run("list", "deliveries", "--status", "held", "--json")).json_lines:
        pass

    dry = await shell.run("replay", "--status", "held", "--dry-run")
    assert dry.out == "0 would be sent again.\n"
    assert "1 more are of disabled endpoints" in dry.err
    done = await shell.run("replay", "--status", "held", "--enable", "--wait")
    assert (done.code, "done, 1 of 1 sent again" in done.out) == (0, True), done.err
    await receiver.wait_for(2, timeout=15)

    (event,) = (await shell.run("list", "events", "--json")).json_lines
    while not (await shell.run("list", "deliveries", "--status", "delivered", "--json")).json_lines:
        pass
    made = (await shell.run("replay", event["id"], "--as-new", "--json")).json
    assert made["id"] in (await shell.run("show", made["id"])).out
    await receiver.wait_for(3, timeout=15)
    first, second, third = (hook.headers["webhook-id"] for hook in receiver.received)
    assert first == second == event["id"] != third


def test_times_are_dates_or_so_long_ago() -> None:
    assert moment_of(None, "--since") is None
    assert moment_of("2h", "--since", now=10_000.0) == 2_800.0
    assert moment_of("3d", "--since", now=1.0) == 0.0
    assert moment_of("2026-08-01T12:00:00+00:00", "--since") == 1_785_585_600.0
    with pytest.raises(typer.BadParameter, match="no time"):
        moment_of("tomorrow", "--until")
