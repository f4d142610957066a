"""A forked process lives and ends as one that was started by its command."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from tests import starting

from batchbell import failpoints

SLEEPS = "import time; time.sleep(60)"


async def run(program: str, log: Path, *, failpoint: str = "") -> int:
    environment = {failpoints.VARIABLE: failpoint}
    process = await starting.start(program, environment=environment, log=log)
    async with asyncio.timeout(30):
        return await process.wait()


@pytest.mark.parametrize(
    ("failpoint", "code"), [("", 0), ("here:2", -signal.SIGKILL), ("here:3", 0), ("there", 0)]
)
async def test_each_has_the_failpoint_of_its_own_environment(
    tmp_path: Path, failpoint: str, code: int
) -> None:
    program = "from batchbell import failpoints\nfor _ in range(2): failpoints.reach('here')"
    assert await run(program, tmp_path / "log", failpoint=failpoint) == code


async def test_its_log_has_what_it_said_and_why_it_ended(tmp_path: Path) -> None:
    program = "import os; print(sorted(os.environ)); raise RuntimeError('enough')"
    assert await run(program, tmp_path / "log") == 1
    said = (tmp_path / "log").read_text()
    assert str([failpoints.VARIABLE]) in said, "nothing of our own environment"
    assert "RuntimeError: enough" in said


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_it_ends_by_the_signal_that_it_is_sent(tmp_path: Path, number: int) -> None:
    process = await starting.start(SLEEPS, environment={}, log=tmp_path / "log")
    other = await starting.start(SLEEPS, environment={}, log=tmp_path / "other")
    end = process.kill if number == signal.SIGKILL else process.terminate
    end()
    assert await process.wait() == -number
    assert other.returncode is None
    other.kill()
    assert await other.wait() == -signal.SIGKILL
