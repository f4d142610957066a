"""The code in docs/howto/verify-webhooks.md verifies, and refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import WebhookVerificationError

from batchbell.core import signing
from tests.verification.conftest import Sending
from tests.verification.judges import NODE, Hook, Node

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "verify-webhooks.md"
PROGRAMS = Path(__file__).parent / "howto"
OTHER = signing.make_secret(b"o" * signing.SECRET_BYTES)
COMPILE_SECONDS = 200.0

BY_HAND = {
    "go": (["go", "run", "."], "package main\n\n", "snippet.go"),
    "ruby": (["ruby", "run.rb"], "", "snippet.rb"),
    "php": (["php", "run.php"], "<?php\n", "snippet.php"),
}
"""How to run the version without a library, the last one of each language on the page."""


def blocks(language: str) -> list[str]:
    page = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.M | re.S)


async def cases(sent: Sending) -> dict[str, tuple[Hook, bool]]:
    """Webhooks, and whether they are good."""
    hook = await sent()
    body, id = hook.body, hook.headers["webhook-id"]
    now = int(time.time())

    def signed(*secrets: str, timestamp: int = now) -> Hook:
        headers = signing.headers(secrets, message_id=id, timestamp=timestamp, body=body)
        return Hook(headers, body, hook.secret)

    return {
        "as sent": (hook, True),
        "rotated": (signed(OTHER, hook.secret), True),
        "tampered": (replace(hook, body=body.replace(b'"failed":1', b'"failed":0')), False),
        "another secret": (replace(hook, secret=OTHER), False),
        "old": (signed(hook.secret, timestamp=now - 400), False),
        "early": (signed(hook.secret, timestamp=now + 400), False),
    }


def as_json(hook: Hook, **more: str) -> str:
    told = {"headers": hook.headers, "body": hook.body.decode(), "secret": hook.secret}
    return json.dumps(told | more) + "\n"


REFUSALS = (ValueError, WebhookVerificationError)


def id_in_python(verify: Callable[..., Any], hook: Hook) -> str | None:
    """The event's id; None for a refusal."""
    try:
        event = verify(hook.body, hook.headers, hook.secret)
    except REFUSALS:
        return None
    found: str = event["id"] if isinstance(event, dict) else event.id
    return found


@pytest.mark.parametrize("number", range(3))
async def test_the_python_code_verifies_and_refuses(sent: Sending, number: int) -> None:
    code: dict[str, Any] = {}
    exec(blocks("python")[number], code)
    for name, (hook, good) in (await cases(sent)).items():
        expected = hook.headers["webhook-id"] if good else None
        assert id_in_python(code["verify"], hook) == expected, name


@pytest.mark.parametrize("number", range(3))
async def test_the_node_code_verifies_and_refuses(node: Node, sent: Sending, number: int) -> None:
    snippet = f"./snippet_{number}.mjs"
    (node.folder / snippet).write_text(blocks("js")[number], encoding="utf-8")
    told = await cases(sent)
    lines = [as_json(hook, snippet=snippet) for hook, _ in told.values()]
    found = [json.loads(line) for line in node.run(NODE / "howto.mjs", input="".join(lines))]
    ids = [hook.headers["webhook-id"] if good else None for hook, good in told.values()]
    assert dict(zip(told, found, strict=True)) == dict(zip(told, ids, strict=True))


@pytest.mark.timeout(300)  # Go compiles its own library at first
@pytest.mark.parametrize("language", BY_HAND)
async def test_the_code_without_a_library_verifies_and_refuses(
    tmp_path: Path, sent: Sending, language: str
) -> None:
    command, opening, name = BY_HAND[language]
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not on this machine: its code was not run.")
    for program in PROGRAMS.glob(f"run{Path(name).suffix}"):
        shutil.copy(program, tmp_path)
    (tmp_path / name).write_text(opening + blocks(language)[-1], encoding="utf-8")
    (tmp_path / "go.mod").write_text("module howto\n\ngo 1.21\n")
    for case, (hook, good) in (await cases(sent)).items():
        verdict = run(command, tmp_path, as_json(hook))
        assert verdict == ("accepted" if good else "refused"), case


def run(command: list[str], folder: Path, told: str) -> str:
    ended = subprocess.run(
        command,
        cwd=folder,
        input=told,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=COMPILE_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_each_block_of_python_and_node_is_run() -> None:
    assert [len(blocks("python")), len(blocks("js"))] == [3, 3]
    assert [len(blocks(language)) for language in BY_HAND] == [2, 2, 2]
