"""Threads of one's own for long work."""

from __future__ import annotations

import asyncio
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


def test_long_work_never_enters_the_shared_threads() -> None:
    """Callers' downloads are read in those of `asyncio.to_thread`."""
    source = Path(batchbell.__file__).parent
    ways_in = [source / "web" / name for name in ("submissions.py", "uploads.py")]
    for file in (*(source / "workers").glob("*.py"), *ways_in):
        assert "to_thread" not in file.read_text(), file
