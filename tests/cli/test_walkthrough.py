"""The end of the demo: the dashboard stays open for whoever sits at a terminal."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from batchbell.cli.walkthrough import about, look_around
from batchbell.sandbox import Received

URL = "http://127.0.0.1:3000"


async def test_the_dashboard_stays_open_until_enter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keyboard, terminal = os.openpty()
    with os.fdopen(terminal) as stdin, os.fdopen(keyboard, "wb", buffering=0) as keys:
        monkeypatch.setattr(sys, "stdin", stdin)
        looking = asyncio.create_task(look_around(URL))
        done, _ = await asyncio.wait({looking}, timeout=0.05)
        assert not done
        assert f"{URL}/dashboard" in capsys.readouterr().out
        keys.write(b"\n")
        await asyncio.wait_for(looking, 10)


def test_nobody_waits_for_a_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(os.devnull) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        asyncio.run(look_around(URL))
    assert capsys.readouterr().out == ""


def test_the_webhook_about_a_batch_is_found_whichever_came_first() -> None:
    """Only those of `/batch-awaiter` have a `batchId`."""
    bodies = (
        b'{"data": {"id": "msgbatch_1"}}',
        b'{"data": {"id": "batch_1"}, "batchId": "batch_1"}',
    )
    received = [Received("POST", "/", {}, body, 0.0, ("127.0.0.1", 9)) for body in bodies]
    for id, found in zip(("msgbatch_1", "batch_1"), received, strict=True):
        assert about(received, id) is found
