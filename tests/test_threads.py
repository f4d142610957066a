"""Threads of one's own for long work."""

from __future__ import annotations

import asyncio
import re
import threading
from pathlib import Path

import pytest

import batchbell
from batchbell.threads import HEAVY_OF_ONE, disk, heavy


async def test_long_work_of_one_owner_delays_neither_others_nor_the_shared_threads() -> None:
    go, begun = threading.Event(), threading.Semaphore(0)

    def long() -> str:
        begun.release()
        assert go.wait(30)
        return "long"

    many = [asyncio.create_task(heavy("many", long)) for _ in range(50)]
    try:
        for _ in range(HEAVY_OF_ONE):
            assert await asyncio.to_thread(begun.acquire, timeout=30)
        assert await heavy("other", lambda: "short") == "short"
        assert await asyncio.to_thread(lambda: "shared") == "shared"
        assert await disk(lambda: "written") == "written"
        assert not any(one.done() for one in many)
        for one in many[10:]:
            one.cancel()
    finally:
        go.set()
    assert await asyncio.gather(*many[:10]) == ["long"] * 10
    assert all(isinstance(one, asyncio.CancelledError) for one in
               await asyncio.gather(*many[10:], return_exceptions=True))  # fmt: skip


async def test_a_failure_is_raised_and_frees_its_place() -> None:
    def fail() -> None:
        raise ValueError("no")

    for _ in range(10):
        with pytest.raises(ValueError, match="no"):
            await heavy("one", fail)


def test_nothing_of_the_server_enters_the_shared_threads() -> None:
    """Name lookups and libraries use those of `asyncio.to_thread`.

    Excepted are the client, which runs in its users' programs, and SQLite's store, which waits
    there for its own threads.
    """
    source = Path(batchbell.__file__).parent
    excepted = {"threads.py", "storage/sqlite.py", "client/submissions.py"}
    found = {
        file.relative_to(source).as_posix()
        for file in source.rglob("*.py")
        if re.search(r"\bto_thread\(|run_in_executor\(\s*None|to_thread\.run", file.read_text())
    }
    assert found <= excepted
