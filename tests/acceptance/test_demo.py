"""`batchbell demo`, as a new user's first command."""

from __future__ import annotations

import json
import re
import signal

import pytest

from tests.acceptance.conftest import Shell


async def test_the_demo_shows_a_verified_webhook_and_leaves_nothing_behind(shell: Shell) -> None:
    ended = await shell.run("demo", DATABASE_URL="postgresql://nobody@127.0.0.1:1/nowhere")
    assert ended.code == 0, ended.err
    assert "verified by client.webhooks.unwrap: batch.completed" in ended.out
    assert "webhook-signature: v1," in ended.out
    kinds = re.findall(r"^ +(\w+) +completed +(\d+ of \d+) answered", ended.out, re.MULTILINE)
    expected = {"openai": "294 of 300", "anthropic": "98 of 100", "gemini": "98 of 100"}
    assert dict(kinds) == expected, "three providers side by side, at the same receiver"
    body = json.loads(ended.out[ended.out.index("\n{") : ended.out.index("\n}") + 2])
    assert body["data"]["request_counts"] == {"total": 300, "completed": 294, "failed": 6}
    assert body["batchId"] == body["data"]["id"]
    (server,) = re.findall(r"^Batchbell +(\S+)$", ended.out, re.MULTILINE)
    assert body["data"]["results"]["url"].startswith(f"{server}/results/")
    assert "in_progress" in ended.err, "progress is shown, in lines where there is no terminal"
    assert "export OPENAI_API_KEY=" in ended.out.splitlines()[-1]
    assert list((shell.folder / "tmp").iterdir()) == []


async def test_the_demo_says_how_to_get_the_sdk(shell: Shell) -> None:
    (shell.folder / "openai.py").write_text("raise ImportError('not installed')\n")
    ended = await shell.run_anew("demo", PYTHONPATH=str(shell.folder))
    assert ended.code == 1
    assert "pip install 'batchbell[demo]'" in ended.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_an_interrupted_demo_leaves_nothing_behind(
    shell: Shell, number: int, code: int
) -> None:
    demo = await shell.start("demo")
    await demo.says("created the batch")
    assert await demo.end(number) == code
    assert "Traceback" not in demo.said
    assert list((shell.folder / "tmp").iterdir()) == []


async def test_the_demo_keeps_its_files_when_asked(shell: Shell) -> None:
    demo = await shell.start("demo", "--keep")
    await demo.says("created the batch")
    await demo.end(signal.SIGINT)
    (folder,) = (shell.folder / "tmp").iterdir()
    assert f"Kept in {folder}" in demo.said
    assert {"batchbell.db", "requests.jsonl"} <= {file.name for file in folder.iterdir()}
