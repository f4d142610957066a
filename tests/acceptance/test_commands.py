"""The commands that speak to a running server."""

from __future__ import annotations

import asyncio
import re
import signal

import httpx2

from batchbell.sandbox import Receiver, Respond, Sandbox
from tests.acceptance.conftest import Ended, Shell


async def test_a_batch_can_be_watched_listed_shown_resent_and_expunged(
    shell: Shell, sandbox: Sandbox, receiver: Receiver
) -> None:
    await shell.serve()
    batch_id = sandbox.provider.add_batch(total=4)
    receiver.behave("/hook", Respond(410, body=b"moved out"), Respond())
    made = await shell.run(
        "watch", batch_id, "--url", receiver.url(), "--metadata", "team=blue", "--json"
    )
    (watch,) = made.json_lines
    assert (watch["batch_id"], watch["metadata"]) == (batch_id, {"team": "blue"})
    sandbox.provider.finish(batch_id, "completed")
    await receiver.wait_for(1, timeout=15)

    (batch,) = (await shell.run("list", "--json")).json_lines
    assert batch["batchbell"]["outcome"] == "succeeded"
    (event,) = (await shell.run("list", "events", "--json")).json_lines
    (delivery,) = (await shell.run("list", "deliveries", "--json")).json_lines
    shown = (await shell.run("show", delivery["id"], "--json")).json
    assert [attempt["status"] for attempt in shown["attempts"]] == [410]
    told = (await shell.run("show", delivery["id"])).out
    assert "410" in told
    assert re.search(r"connect \d+ · first byte \d+ · total \d+ ms", told)
    assert re.search(r"^webhook-signature +\*\*\*$", told, re.MULTILINE)
    assert f"webhook-id         {event['id']}" in told
    story = (await shell.run("show", batch_id, "--timeline", "--json")).json
    calls = [one for one in story["data"] if one["kind"] == "attempt"]
    assert [(one["http_status"], one["delivery_id"]) for one in calls] == [(410, delivery["id"])]
    told = (await shell.run("show", batch_id)).out
    assert re.search(r"\+\S+ s +First seen: \w+\.$", told, re.MULTILINE), told
    assert re.search(r"Attempt 1 to \S+: HTTP 410, after \d+ ms\.$", told, re.MULTILINE), told
    for identity in (batch_id, watch["id"], event["id"]):
        ended = await shell.run("show", identity)
        assert (ended.code, identity in ended.out) == (0, True), ended.err

    assert delivery["id"] in (await shell.run("resend", event["id"])).out
    await receiver.wait_for(2, timeout=15)
    chosen = ("--status", "completed", "--outcome", "succeeded", "--id", batch_id, "--since", "1h")
    assert batch_id in (await shell.run("list", *chosen)).out
    assert (await shell.run("list", *chosen, "--metadata", "team=blue")).err == "No batches.\n"
    of_it = ("--batch", batch_id, "--endpoint", delivery["endpoint_id"], "--until", "0m")
    assert delivery["id"] in (await shell.run("list", "deliveries", *of_it)).out
    assert len((await shell.run("results", batch_id)).json_lines) == 4
    assert (await shell.run("expunge", batch_id, "--yes")).code == 0
    gone = await shell.run("results", batch_id)
    assert (gone.code, "results ID --refetch" in gone.err) == (1, True), gone.err
    again = await shell.run("results", batch_id, "--refetch")
    assert len(again.json_lines) == 4, again.err
    none = await shell.run("list", "watches", "--batch", "batch_other")
    assert (none.out, none.err) == ("", "No watches.\n")


async def test_what_wait_exits_with_tells_the_outcome(shell: Shell, sandbox: Sandbox) -> None:
    await shell.serve()
    provider = sandbox.provider
    succeeded, partial, failed, cancelled, running = provider.add_batches(5)
    provider.finish(succeeded, "completed")
    provider.finish(partial, "completed", failed=1)
    provider.finish(failed, "failed")
    provider.finish(cancelled, "cancelled", completed=0)

    async def wait(batch_id: str, *more: str) -> Ended:
        return await shell.run("wait", batch_id, "--url", "http://127.0.0.1:9/hook", *more)

    ended = await asyncio.gather(
        *map(wait, (succeeded, partial, failed, cancelled)), wait(running, "--timeout", "1")
    )
    assert [one.code for one in ended] == [0, 3, 4, 4, 124], [one.err for one in ended]
    assert ended[0].out == f"{succeeded}: completed, 10 of 10 done; outcome: succeeded.\n"
    assert "has not ended in time" in ended[4].err
    document = await shell.run("wait", partial, "--json")
    assert (document.code, document.json["batchbell"]["outcome"]) == (3, "partial")


async def test_wait_names_watch_for_a_batch_that_nobody_watches(shell: Shell) -> None:
    await shell.serve()
    ended = await shell.run("wait", "batch_unknown")
    assert ended.code == 1
    assert "batchbell watch batch_unknown --url URL" in ended.err


async def test_ids_beyond_one_call_are_read_from_a_file_or_standard_input(shell: Shell) -> None:
    await shell.serve("--no-workers")
    url = "http://127.0.0.1:9/hook"
    ids = [f"batch_{number}" for number in range(1500)]
    (shell.folder / "ids.txt").write_text("# yesterday's\n" + "\n".join(ids[:2]) + "\n\n")
    few = await shell.run("watch", "--file", "ids.txt", "--url", url)
    assert "Watching 2 batches." in few.out
    many = await shell.run("watch", "--file", "-", "--url", url, input="\n".join(ids))
    assert many.out == "Watching 1,500 batches.\n"
    listed = await shell.run("list", "watches", "--all", "--json")
    assert {watch["batch_id"] for watch in listed.json_lines} == set(ids)
    first = await shell.run("list", "--limit", "3")
    assert len(first.out.splitlines()) == 4
    assert "--all" in first.err


async def test_without_a_server_the_line_says_to_start_one(shell: Shell) -> None:
    ended = await shell.run("list")
    assert ended.code == 1
    (line,) = ended.err.splitlines()
    assert line.startswith("batchbell: error: ")
    assert "batchbell serve" in line


async def test_a_misspelt_command_exits_with_2(shell: Shell) -> None:
    url = ("--url", "http://127.0.0.1:9/")
    misspelt: list[tuple[str, ...]] = [
        ("watch", *url),
        ("watch", "batch_1"),
        ("watch", "batch_1", *url, "--metadata", "x"),
        ("watch", "--file", "nowhere.txt", *url),
        ("list", "nothings"),
        ("list", "events", "--status", "completed"),
        ("list", "events", "--outcome", "partial"),
        ("list", "watches", "--since", "2h"),
        ("list", "--since", "yesterday"),
        ("list", "--metadata", "x"),
        ("show", "evt_1", "--timeline", "--server", "http://127.0.0.1:9"),
        ("no-such-command",),
    ]
    ended = await asyncio.gather(*(shell.run(*words) for words in misspelt))
    assert [(one.code, one.out) for one in ended] == [(2, "")] * len(misspelt)


async def test_ctrl_c_ends_a_wait_quietly(shell: Shell, sandbox: Sandbox) -> None:
    await shell.serve()
    batch_id = sandbox.provider.add_batch()
    waiting = await shell.start("wait", batch_id, "--url", "http://127.0.0.1:9/hook")
    await waiting.says("in_progress")
    assert await waiting.end(signal.SIGINT) == 130
    assert "Traceback" not in waiting.said


async def test_a_reader_that_leaves_ends_a_list_quietly(shell: Shell) -> None:
    await shell.serve("--no-workers")
    ids = "\n".join(f"batch_{number}" for number in range(1000))
    await shell.run("watch", "--file", "-", "--url", "http://127.0.0.1:9/", input=ids)
    listing = await shell.start_piped("list", "watches", "--all", "--json")
    assert listing.stdout is not None
    await listing.stdout.readline()
    listing.stdout._transport.close()  # type: ignore[attr-defined]
    _, errors = await listing.communicate()
    assert errors == b""
    assert listing.returncode == 141


async def test_the_sandbox_can_be_used_as_it_says(shell: Shell) -> None:
    serving = await shell.start("sandbox", "--port", "0", "--receiver-port", "0")
    await serving.says("batchbell serve")
    await serving.says("webhooks:")
    line = next(line for line in serving.said.splitlines() if "batchbell serve" in line)
    words = dict(word.split("=", 1) for word in line.split() if "=" in word)
    checked = await shell.run("doctor", "--json", **words)
    states = {finding["check"]: finding["state"] for finding in checked.json_lines}
    assert states["provider"] == "ok"
    hook = next(word for word in serving.said.split() if word.endswith("/hook"))
    async with httpx2.AsyncClient() as client:
        await client.post(hook, content=b"said at once, whoever reads it")
    await serving.says("said at once, whoever reads it")
    assert await serving.end(signal.SIGINT) == 130
    assert "Traceback" not in serving.said


async def test_an_endpoint_is_made_tested_rotated_and_deleted(
    shell: Shell, receiver: Receiver
) -> None:
    await shell.serve()
    how = ("--url", receiver.url(), "--name", "nightly", "--header", "X-Team: night")
    made = await shell.run("endpoints", "create", *how, "--schedule", "5,60")
    assert made.out.startswith("whsec_"), made.err
    (endpoint,) = (await shell.run("endpoints", "list", "--json")).json_lines
    assert (endpoint["headers"], endpoint["schedule"]) == ({"X-Team": "***"}, [5, 60])
    tested = await shell.run("endpoints", "test", endpoint["id"])
    assert (tested.code, "delivered" in tested.out) == (0, True), tested.err
    assert receiver.received[0].headers["x-team"] == "night"
    receiver.behave("/hook", Respond(500))
    assert (await shell.run("endpoints", "test", endpoint["id"])).code == 1
    rotated = await shell.run("endpoints", "rotate", endpoint["id"])
    assert rotated.out != made.out
    await shell.run("endpoints", "update", endpoint["id"], "--name", "daily")
    assert "daily" in (await shell.run("endpoints", "show", endpoint["id"])).out
    assert (await shell.run("endpoints", "enable", endpoint["id"])).code == 0
    asked = await shell.run("endpoints", "delete", endpoint["id"])
    assert (asked.code, "Pass --yes" in asked.err) == (2, True), asked.err
    assert endpoint["id"] in (await shell.run("endpoints", "list")).out
    gone = await shell.run("endpoints", "delete", endpoint["id"], "--yes")
    assert gone.code == 0, gone.err
    assert (await shell.run("endpoints", "list")).err == "No endpoints.\n"


async def test_watches_are_deleted_by_their_id_or_that_of_their_batch(
    shell: Shell, sandbox: Sandbox
) -> None:
    await shell.serve()
    one, other = sandbox.provider.add_batches(2)
    hooks = ("http://127.0.0.1:9/a", "http://127.0.0.1:9/b", "http://127.0.0.1:9/c")
    for hook in hooks:
        await shell.run("watch", one, other, "--url", hook)
    at = shell.url.removeprefix("http://")
    of_one = ("list", "watches", "--batch", one, "--json", "--server", at)
    ended = await shell.run("unwatch", one, "--url", hooks[0])
    assert ended.out == f"{one} is no longer watched for {hooks[0]}.\n", ended.err
    listed = await shell.run(*of_one)
    left = listed.json_lines
    assert listed.err == ""
    assert sorted(watch["url"] for watch in left) == [*hooks[1:]]
    gone = await shell.run("unwatch", left[0]["id"], "--json")
    assert gone.json_lines == [{"id": left[0]["id"], "deleted": True}]
    assert (await shell.run("unwatch", one)).code == 0
    again = await shell.run("unwatch", one)
    assert (again.code, f"Nobody watches batch '{one}'" in again.err) == (1, True), again.err
    assert len((await shell.run("list", "watches", "--batch", other, "--json")).json_lines) == 3
