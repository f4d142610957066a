"""`batchbell doctor` finds what is wrong and says what to do."""

from __future__ import annotations

import asyncio
import base64
import time
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from batchbell.core.model import DEFAULT_PROJECT
from batchbell.storage.accounts import ensure_account
from batchbell.storage.opening import open_store
from batchbell.storage.places import list_places
from batchbell.storage.schema import accounts
from tests.acceptance.conftest import Ended, Shell


def findings(ended: Ended) -> dict[str, Any]:
    return {finding["check"]: finding for finding in ended.json_lines}


async def test_all_is_well_beside_a_running_server(shell: Shell) -> None:
    await shell.serve()
    ended = await shell.run("doctor", "--json")
    assert ended.code == 0, ended.out
    assert {one["state"] for one in ended.json_lines} == {"ok"}
    assert {"settings", "sqlite", "database", "clock", "provider", "server", "receivers"} <= set(
        findings(ended)
    )
    assert "local mode" in findings(ended)["receivers"]["says"]


async def test_before_the_first_start_nothing_has_failed_and_nothing_is_made(shell: Shell) -> None:
    ended = await shell.run("doctor")
    assert ended.code == 0, ended.out
    assert "`batchbell serve` makes it." in ended.out
    assert not (shell.folder / "batchbell.db").exists()


@pytest.mark.parametrize(
    ("environment", "says", "advice"),
    [
        ({"OPENAI_API_KEY": "sk-wrong"}, "sk-wrong", "Check OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": ""}, "is not set", "export OPENAI_API_KEY="),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}, "http://127.0.0.1:9/v1", "network"),
        ({"OPENAI_BASE_URL": "nowhere"}, "no base URL", "Mend it"),
    ],
    ids=["wrong key", "no key", "unreachable", "no URL"],
)
async def test_a_provider_that_cannot_be_used_is_explained(
    shell: Shell, environment: dict[str, str], says: str, advice: str
) -> None:
    ended = await shell.run("doctor", "--json", **environment)
    assert ended.code == 1
    provider = findings(ended)["provider"]
    assert provider["state"] == "failed"
    assert advice in provider["advice"]
    if says == "sk-wrong":
        assert says not in ended.out, "no key is ever shown"
    else:
        assert says in provider["says"]


async def test_a_database_and_a_server_that_are_away_are_explained(shell: Shell) -> None:
    ended = await shell.run(
        "doctor",
        "--json",
        "--server",
        "http://127.0.0.1:9",
        DATABASE_URL="postgresql://nobody@127.0.0.1:9/nowhere",
    )
    assert ended.code == 1
    for check in ("database", "server"):
        assert findings(ended)[check]["state"] == "failed"
        assert findings(ended)[check]["advice"]


async def test_a_server_that_wants_a_key_is_explained(shell: Shell) -> None:
    await shell.run("keys", "create", "--name", "ops")
    await shell.serve()
    ended = await shell.run("doctor", "--json")
    assert ended.code == 1
    assert "BATCHBELL_API_KEY" in findings(ended)["access"]["advice"]


async def test_a_setting_that_cannot_be_read_is_the_first_thing_to_mend(shell: Shell) -> None:
    ended = await shell.run("doctor", "--json", BATCHBELL_ALLOW_CIDRS="10.0.0.0/99")
    assert ended.code == 1
    (finding,) = ended.json_lines
    assert "BATCHBELL_ALLOW_CIDRS" in finding["says"]


async def test_the_database_s_clock_is_compared(shell: Shell, postgres_url: str) -> None:
    await shell.run("migrate", DATABASE_URL=postgres_url)
    ended = await shell.run("doctor", "--json", DATABASE_URL=postgres_url)
    clocks = [one["says"] for one in ended.json_lines if one["check"] == "clock"]
    assert clocks[0] == "As the database's clock, within a few seconds."
    assert clocks[1] == "As the provider's clock, within a few seconds."


async def test_it_says_which_key_seals_the_secrets(shell: Shell, postgres_url: str) -> None:
    keys = [base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2)]
    await shell.run("migrate", DATABASE_URL=postgres_url)
    plain = await shell.run("doctor", "--json", DATABASE_URL=postgres_url)
    assert findings(plain)["secrets"]["state"] == "note"
    assert "BATCHBELL_MASTER_KEY" in findings(plain)["secrets"]["advice"]

    both = {"DATABASE_URL": postgres_url, "BATCHBELL_MASTER_KEY": ",".join(keys)}
    await shell.run("secret", **both)
    sealed = findings(await shell.run("doctor", "--json", **both))["secrets"]
    assert sealed["state"] == "ok"
    assert "BATCHBELL_MASTER_KEY; " in sealed["says"]

    locked = await shell.run("doctor", "--json", DATABASE_URL=postgres_url)
    assert locked.code == 1
    assert "BATCHBELL_MASTER_KEY" in findings(locked)["secrets"]["says"]
    assert all(key not in one.out for one in (plain, locked) for key in keys)


async def test_dead_workers_and_unused_proxies_are_said(shell: Shell, postgres_url: str) -> None:
    """Nobody has swept for hours, and the server that is asked has no workers."""
    database = {"DATABASE_URL": postgres_url}
    await shell.run("secret", **database)
    store = await open_store(postgres_url)
    try:
        account = {"project_id": DEFAULT_PROJECT, "provider": "openai", "base_url": "https://x"}
        mint = lambda prefix: f"{prefix}_1"  # noqa: E731
        await store.write(ensure_account, name="nightly", **account, mint=mint, now=1.0)
    finally:
        await store.close()
    odd = {"HTTPS_PROXY": "http://127.0.0.1:9", "DATABASE_PTH": "/data/batchbell.db"}
    alone = await shell.run("doctor", "--json", **odd, **database)
    assert alone.code == 1
    assert "nightly is not swept" in findings(alone)["account"]["says"]
    assert "HTTPS_PROXY is set" in findings(alone)["proxy"]["says"]
    assert "DATABASE_PATH" in findings(alone)["environment"]["advice"]

    await shell.serve("--no-workers", **database)
    asked = await shell.run("doctor", "--json", **database)
    assert asked.code == 1
    assert "is a worker running?" in findings(asked)["work"]["says"]
    assert "nightly is not swept" in findings(asked)["account"]["says"]


async def test_accounts_with_ways_that_fail_are_named(shell: Shell, postgres_url: str) -> None:
    """By the database, and by the server: both say what it means and what helps."""
    database = {"DATABASE_URL": postgres_url}
    await shell.run("secret", **database)
    store = await open_store(postgres_url)
    seen = {"list_stale": True, "list_error": "No.", "retrieve_error": "Never."}
    try:
        account = {"project_id": DEFAULT_PROJECT, "provider": "openai", "base_url": "https://x"}
        mint, now = lambda prefix: f"{prefix}_1", time.time()
        await store.write(ensure_account, name="nightly", **account, mint=mint, now=now)
        changed = update(accounts).values(seen)
        await store.write(lambda connection: connection.execute(changed).rowcount)
    finally:
        await store.close()
    alone = await shell.run("doctor", "--json", **database)
    await shell.serve("--no-workers", **database)
    asked = await shell.run("doctor", "--json", **database)
    for ended in (alone, asked):
        says = [one["says"] for one in ended.json_lines if one["check"] == "account"]
        stale, unlisted, unread = [words for words in says if "account nightly" in words]
        assert "is out of date" in stale
        assert "ends arrive later" in stale
        assert "cannot be read: No." in unlisted
        assert "cannot be read: Never." in unread


async def test_the_last_key_is_said_before_it_is_gone(shell: Shell) -> None:
    """Also where no server runs, and only of the project that looks after the others."""
    await shell.run("keys", "create", "--name", "ops")
    one = findings(await shell.run("doctor", "--json"))["keys"]
    assert one["state"] == "note"
    assert "if it is lost" in one["says"]
    await shell.run("keys", "create", "--name", "spare")
    assert "keys" not in findings(await shell.run("doctor", "--json"))


async def test_places_for_results_that_are_not_shared_are_named(
    shell: Shell, postgres_url: str
) -> None:
    """Each process takes a relative folder from where it was started."""
    elsewhere = shell.folder / "elsewhere"
    elsewhere.mkdir()
    for folder in (shell.folder, elsewhere):
        there = replace(shell, folder=folder, running=[])
        server = await there.serve("--no-workers", DATABASE_URL=postgres_url)
        await known_place(postgres_url, str(folder / "batchbell-results"))
        await server.end()
    ended = await shell.run("doctor", "--json", DATABASE_URL=postgres_url)
    assert ended.code == 1
    says = findings(ended)["results"]["says"]
    for folder in (shell.folder, elsewhere):
        assert str(folder / "batchbell-results") in says


async def known_place(url: str, name: str) -> None:
    """Return when a process has said that it keeps results there."""
    store = await open_store(url)
    try:
        async with asyncio.timeout(20):
            known: set[str] = set()
            while name not in known:
                known = {one.name for one in await store.read(list_places)}
    finally:
        await store.close()


async def test_it_names_the_key_file(shell: Shell) -> None:
    await shell.run("keys", "create", "--name", "ops")
    secrets = findings(await shell.run("doctor", "--json"))["secrets"]
    assert secrets["state"] == "ok"
    assert "batchbell.db.key" in secrets["says"]
