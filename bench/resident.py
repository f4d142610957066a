"""What a running process and its children take of memory and processor time, as Linux counts it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

MB = 1e6
TICKS = os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int, *, peak: bool = False) -> float:
    """Now, or the most since `forget_peak`; what processes share counts for each of them."""
    wanted = "VmHWM:" if peak else "VmRSS:"

    def look(folder: Path) -> float:
        for line in (folder / "status").read_text().splitlines():
            if line.startswith(wanted):
                return int(line.split()[1]) * 1024 / MB
        return 0.0  # it has ended

    return _sum(pid, look)


def forget_peak(pid: int) -> None:
    """Let the peak be what is resident now."""
    _sum(pid, lambda folder: (folder / "clear_refs").write_text("5"))


def cpu_seconds(pid: int) -> float:
    """Since they were started, those that have ended included."""

    def look(folder: Path) -> float:
        words = (folder / "stat").read_text().rpartition(")")[2].split()
        return sum(map(int, words[11:15])) / TICKS

    return _sum(pid, look)


def _sum(pid: int, look: Callable[[Path], float]) -> float:
    found = 0.0
    for one in (pid, *_children(pid)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += look(Path(f"/proc/{one}"))
    return found


def _children(pid: int) -> list[int]:
    """Each is that of the thread that started it."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]
