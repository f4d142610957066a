"""(m): how fast requests are checked before a byte of them is uploaded."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

from batchbell.core.limits import Limits
from batchbell.files.lines import PIECE_BYTES, open_lines, read_lines
from batchbell.files.preflight import prepare
from bench.chats import LINES, Chats
from bench.collecting import chats_of
from bench.run import Run
from bench.tables import show

ROUNDS = 5
LIMITS = Limits(bytes=300 * 10**6)
"""Room for all of it in one part, so that both ways write one file."""


async def run(run: Run) -> None:
    """The preflight of 50,000 requests, 200 MB"""
    chats = chats_of(run, LINES // 10 if run.quick else LINES)
    best = await asyncio.to_thread(_measure, chats, run.folder / "parts")
    megabytes = chats.input.stat().st_size / 1e6
    copied = megabytes / best["copied"]
    show(
        ["lines", "MB/s", "to copied"],
        [[w, f"{megabytes / s:,.0f}", f"{megabytes / s / copied:.2f}"] for w, s in best.items()],
    )
    print(
        f"\nThe best of {ROUNDS} rounds of {chats.lines:,} lines and {megabytes:,.0f} MB, by turns,"
        " in one process. Copied: read by the same\nreader, and written as they are. Checked: each"
        " line read as JSON and judged, and written to the part that would be uploaded."
    )


def _measure(chats: Chats, folder: Path) -> dict[str, float]:
    """The seconds of each way."""
    best = {"copied": float("inf"), "checked": float("inf")}
    for _ in range(ROUNDS):
        for word, work in (("copied", _copy), ("checked", _check)):
            folder.mkdir()
            started = time.perf_counter()
            work(chats, folder)
            best[word] = min(best[word], time.perf_counter() - started)
            shutil.rmtree(folder)
    return best


def _copy(chats: Chats, folder: Path) -> None:
    with open_lines(chats.input) as source, (folder / "copy").open("wb", PIECE_BYTES) as target:
        for line in read_lines(source):
            target.write(line.text + b"\n")


def _check(chats: Chats, folder: Path) -> None:
    with open_lines(chats.input) as source:
        found = prepare(source, folder, limits=LIMITS)
    assert (found.lines, found.problems) == (chats.lines, []), found.problems
    assert [part.path.stat().st_size for part in found.parts] == [chats.input.stat().st_size]
