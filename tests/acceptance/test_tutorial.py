"""The tutorial from prompts to results, run as it is written."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests import starting
from tests.acceptance.conftest import START_SECONDS
from tests.ports import free_port

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "from-prompts-to-results.md"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LOOK = "until grep -q results/ webhooks.log; do sleep 0.1; done\n"
"""What a reader does before the next step."""

READER_SECONDS = 100.0

Bash = Callable[..., Coroutine[Any, Any, Process]]


@pytest.fixture
def ports() -> dict[str, str]:
    """The page's, and those that are free here."""
    return {port: str(free_port()) for port in ("8089", "3000", "8000")}


@pytest.fixture
async def bash(tmp_path: Path, ports: dict[str, str]) -> AsyncIterator[Bash]:
    """Starts a script in the reader's folder; what still runs in the end is killed."""
    started: list[Process] = []
    environment = {
        **starting.inherited(),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PORT": ports["3000"],
        "BATCHBELL_URL": f"http://127.0.0.1:{ports['3000']}",
        "BATCHBELL_POLL_INTERVAL_SECONDS": "0.2",
    }

    async def start(script: str, output: int = DEVNULL) -> Process:
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", script),
            cwd=tmp_path,
            env=environment,
            stdin=DEVNULL,
            stdout=output,
            stderr=STDOUT,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def blocks(ports: dict[str, str]) -> list[tuple[str, str]]:
    """The page's code, on ports that are free, and with batches that are over sooner."""
    page = PAGE.read_text(encoding="utf-8")
    page = page.replace("sandbox --seconds 10", f"sandbox --port {ports['8089']} --seconds 1")
    for port, free in ports.items():
        page = re.sub(rf"\b{port}\b", free, page)
    return BLOCK.findall(page)


async def listening(port: str) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", int(port))
                writer.close()
                return
            await asyncio.sleep(0.05)


def identities(file: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in file.read_bytes().splitlines()]


@pytest.mark.long
async def test_the_tutorial_works_as_it_is_written(
    bash: Bash, ports: dict[str, str], tmp_path: Path
) -> None:
    (_, sandbox), (_, server), *steps = blocks(ports)
    await bash(sandbox)
    await bash(server)
    for port in ports.values():
        await listening(port)
    [program] = [code for language, code in steps if language == "python"]
    (tmp_path / "squares.py").write_text(program)
    script = [code for language, code in steps if language == "sh"]
    [link] = [place for place, code in enumerate(script) if "link=" in code]
    script.insert(link, LOOK)
    reader = await bash("".join(script), PIPE)
    async with asyncio.timeout(READER_SECONDS):
        said = (await reader.communicate())[0].decode()
    assert "line 9: custom_id 'bye' is on line 8 too." in said
    assert "completed, 8 of 8 done, 2 failed; outcome: partial." in said
    assert said.count("The sandbox made this request fail.") == 2
    assert "8 results.jsonl" in said, "cmp found no difference"
    assert '"usage":{"input_tokens":144,' in said
    assert "expired, 7 of 8 done" in said
    assert "number-20 The sandbox heard: What is 20 squared?" in said
    assert "succeeded {'input_tokens': 480," in said
    asked = identities(tmp_path / "prompts.jsonl")
    assert identities(tmp_path / "results.jsonl") == identities(tmp_path / "again.jsonl") == asked
    assert (tmp_path / "again.jsonl").read_text().count("batch_expired") == 1
