"""Accounts of the settings file, as an operator has them."""

from __future__ import annotations

from batchbell.sandbox import OPEN, Receiver, Sandbox
from tests.acceptance.conftest import API_KEY, Shell

FILE = """
[[accounts]]
name = "eu"
base_url = "{eu}"
api_key_env = "EU_KEY"
discover = true

[[accounts]]
name = "nightly"
base_url = "{nightly}"
poll_interval_seconds = 0.5
batch_max_requests = 2
"""


async def test_two_accounts_of_a_file_are_watched_and_one_that_is_taken_out_is_kept(
    shell: Shell, sandbox: Sandbox, receiver: Receiver
) -> None:
    file = shell.folder / "batchbell.toml"
    setting = {"BATCHBELL_CONFIG": str(file), "EU_KEY": "sk-eu"}
    async with Sandbox(api_key="sk-eu", schedule=OPEN) as eu:
        file.write_text(FILE.format(eu=eu.base_url, nightly=sandbox.base_url))
        serving = await shell.serve(**setting)
        assert "Watching eu at" in serving.said
        listed = (await shell.run("accounts", "list", "--json", **setting)).json_lines
        assert [(one["name"], one["source"]) for one in listed] == [
            ("eu", "environment"),
            ("nightly", "environment"),
        ]
        assert [one["discover"] for one in listed] == [True, False]
        for provider, account in ((eu.provider, "eu"), (sandbox.provider, "nightly")):
            id = provider.add_batch(total=1)
            watch = {"batch_id": id, "url": receiver.url(f"/{account}"), "account": account}
            assert (await shell.post("/v1/watches", watch)).status_code == 201
            provider.finish(id, "completed")
        heard = await receiver.wait_for(2, timeout=30)
        assert {one.path for one in heard} == {"/eu", "/nightly"}
        assert {key for _, key in _keys(eu, sandbox)} == {"sk-eu", API_KEY}
        well = await shell.run("doctor", "--json", **setting)
        says = [one["says"] for one in well.json_lines if one["check"] == "provider"]
        assert [said.split(":")[0] for said in says] == ["Account eu", "Account nightly"]
        assert await serving.end() == 0

        file.write_text("")
        await shell.serve(**setting)
        gone = await shell.run("doctor", "--json", **setting)
        notes = [one["says"] for one in gone.json_lines if one["check"] == "account"]
        assert [note.split(" ")[1] for note in notes if "not any more" in note] == ["eu", "nightly"]
        assert (await shell.run("accounts", "remove", "eu", **setting)).code == 0
        refused = await shell.run("accounts", "remove", "openai", **setting)
        assert "settings file" in refused.err


async def test_a_file_whose_variable_is_not_set_ends_the_start(shell: Shell) -> None:
    file = shell.folder / "batchbell.toml"
    file.write_text('[[accounts]]\nname = "eu"\napi_key_env = "EU_KEY"\n')
    ended = await shell.run("serve", BATCHBELL_CONFIG=str(file))
    assert ended.code != 0
    assert "the variable EU_KEY is not set" in ended.err
    assert not (shell.folder / "batchbell.db").exists()


def _keys(*sandboxes: Sandbox) -> list[tuple[str, str | None]]:
    return [(one.base_url, one.provider.api_key) for one in sandboxes]
